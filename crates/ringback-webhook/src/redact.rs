//! What of a receiver's words may be kept: no control characters, and nothing of the endpoint's URL or of the
//! operator's headers that could be a credential. Receivers do echo both: a redirect to the same path, a page that
//! says "cannot POST /path", a debugger that lists the request.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use url::Url;

/// The parts of one request that are not repeated anywhere. Of its URL, as written and decoded: user, password, the
/// `Basic` authorization made of them, every value in the query of at least [`SHORTEST_VALUE`] characters, and every
/// path segment and other word of the query of at least [`SHORTEST`]. Of its sensitive headers: every value of at least
/// [`SHORTEST_VALUE`] characters, whole and without its scheme, and every word of at least [`SHORTEST`]. Shorter ones
/// are no credentials, and hiding them would spoil unrelated words.
pub(crate) struct Hidden(Vec<String>);

const SHORTEST: usize = 8;
/// Of a value: somebody gave it a name, and it is more likely to be meant as a secret.
const SHORTEST_VALUE: usize = 4;
const MASK: &str = "***";

/// A URL's user and password as `Basic` has them after its name.
pub(crate) fn basic(url: &Url) -> String {
    STANDARD.encode(format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default())))
}

fn is_long(part: &str, least: usize) -> bool {
    part.chars().count() >= least
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

impl Hidden {
    /// Collects the parts.
    pub(crate) fn of(url: &Url) -> Self {
        let query = || url.query().unwrap_or("").split('&');
        let words = url.path().split('/').chain(query().flat_map(|pair| pair.split('=')));
        // A query without a name is a value.
        let values = query().map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let mut parts: Vec<String> = words
            .flat_map(|word| [word.to_owned(), decoded(word)])
            .filter(|word| is_long(word, SHORTEST))
            .chain(
                values
                    .flat_map(|value| [value.to_owned(), decoded(value), decoded(&value.replace('+', " "))])
                    .filter(|value| is_long(value, SHORTEST_VALUE)),
            )
            .collect();
        // Whatever their length: whoever gave a password meant it.
        let (user, password) = (url.username(), url.password().unwrap_or(""));
        if !user.is_empty() || !password.is_empty() {
            parts.push(basic(url));
            parts.extend([user.to_owned(), decoded(user), password.to_owned(), decoded(password)]);
        }
        Hidden(parts).sorted()
    }

    /// Adds the values of headers that are marked as sensitive.
    pub(crate) fn and_headers(mut self, headers: &HeaderMap) -> Self {
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let Ok(value) = value.to_str() else { continue };
            let words = value.split_ascii_whitespace().filter(|word| is_long(word, SHORTEST));
            let credentials = value.split_once(' ').map(|(_, rest)| rest.trim());
            let values = credentials.into_iter().chain([value]).filter(|part| is_long(part, SHORTEST_VALUE));
            self.0.extend(words.chain(values).map(str::to_owned));
        }
        self.sorted()
    }

    fn sorted(mut self) -> Self {
        self.0.retain(|part| !part.is_empty());
        // A part may contain another; the longest goes first or its rest would stay.
        self.0.sort_by_key(|part| std::cmp::Reverse(part.len()));
        self
    }

    /// The text as it may be kept: hidden parts masked, control characters escaped, at most `bytes` long.
    pub(crate) fn clean(&self, text: &str, bytes: usize) -> String {
        let mut text = text.to_owned();
        for part in &self.0 {
            text = text.replace(part.as_str(), MASK);
        }
        let mut cleaned = String::new();
        for c in text.chars() {
            let before = cleaned.len();
            if c.is_control() {
                // Writing to a string cannot fail.
                let _ = write!(cleaned, "{}", c.escape_default());
            } else {
                cleaned.push(c);
            }
            if cleaned.len() > bytes {
                cleaned.truncate(before);
                break;
            }
        }
        cleaned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, text: &str, want: &str) {
        assert_eq!(Hidden::of(&url.parse().unwrap()).clean(text, 1024), want);
    }

    #[test]
    fn long_parts_of_the_url_are_masked_and_short_ones_are_not() {
        check("http://h/in/XXXXXXXXXXXXXXXX", "Cannot POST /in/XXXXXXXXXXXXXXXX", "Cannot POST /in/***");
        check("http://h/?token=0123456789&a=b", "no 0123456789, a=b", "no ***, a=b");
    }

    #[test]
    fn a_short_value_of_the_query_is_masked_and_a_short_name_or_segment_is_not() {
        check("http://h/hook?k=hunter2", "no hunter2 at /hook?k=hunter2", "no *** at /hook?k=***");
        check("http://h/?hunter2", "hunter2 k", "*** k");
        check("http://h/?a=b%20cd&v=p+q+r&n=12&key=abc", "b cd, b%20cd, p+q+r, p q r", "***, ***, ***, ***");
        check("http://h/?n=12&key=abc", "12 keys of abc", "12 keys of abc");
        check("http://h/?q=%61%62", "ab %61%62", "ab ***");
        check("http://h/?sig=a=b=c", "a=b=c", "***");
    }

    #[test]
    fn user_and_password_are_masked_whatever_their_length() {
        check("http://bob:pw1@h/", "hello bob, pw1 is wrong", "hello ***, *** is wrong");
    }

    #[test]
    fn an_echoed_authorization_and_a_decoded_password_are_masked() {
        check("http://bob:p%40ss@h/", "p@ss p%40ss Basic Ym9iOnBAc3M=", "*** *** Basic ***");
    }

    #[test]
    fn sensitive_headers_are_masked_whole_and_without_their_scheme() {
        let mut headers = HeaderMap::new();
        let mut token = http::HeaderValue::from_static("Bearer 0123456789");
        token.set_sensitive(true);
        headers.insert("authorization", token);
        headers.insert("user-agent", http::HeaderValue::from_static("ringback/0.1.0"));
        let hidden = Hidden::of(&"http://h/".parse().unwrap()).and_headers(&headers);
        let text = "Bearer 0123456789, 0123456789, ringback/0.1.0";
        assert_eq!(hidden.clean(text, 1024), "***, ***, ringback/0.1.0");
    }

    #[test]
    fn short_values_of_sensitive_headers_are_masked_and_their_schemes_are_not() {
        let check = |value: &'static str, text: &str, want: &str| {
            let mut headers = HeaderMap::new();
            let mut token = http::HeaderValue::from_static(value);
            token.set_sensitive(true);
            headers.insert("x-api-key", token);
            let hidden = Hidden::of(&"http://h/".parse().unwrap()).and_headers(&headers);
            assert_eq!(hidden.clean(text, 1024), want, "{value}");
        };
        check("hunter2", r#"{"x-api-key":"hunter2"}"#, r#"{"x-api-key":"***"}"#);
        check("Bearer hunter2", "Bearer hunter2; no bearer of hunter2", "***; no bearer of ***");
        check("Basic  pw12", "pw12 is no Basic word", "*** is no Basic word");
        check("on", "it is on", "it is on");
    }

    #[test]
    fn control_characters_are_escaped() {
        check("http://h/", "a\nb\u{1b}[31m\u{9b}\u{0}", "a\\nb\\u{1b}[31m\\u{9b}\\u{0}");
    }

    #[test]
    fn the_result_ends_at_a_whole_character_within_its_bound() {
        let hidden = Hidden::of(&"http://h/".parse().unwrap());
        assert_eq!(hidden.clean("ab\u{20ac}", 4), "ab");
        assert_eq!(hidden.clean("ab\n", 3), "ab");
        assert_eq!(hidden.clean("abc", 3), "abc");
    }
}
