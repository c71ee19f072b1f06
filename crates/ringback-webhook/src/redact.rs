//! What of a receiver's words may be kept: no control characters, and nothing of the endpoint's URL or of the
//! operator's headers that could be a credential. Receivers do echo both: a redirect to the same path, a page that
//! says "cannot POST /path", a debugger that lists the request.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use url::Url;

/// The parts of one URL that are not repeated anywhere, as written and percent-decoded: user, password, the `Basic`
/// authorization made of them, and every path segment and query part of at least [`SHORTEST`] characters. Shorter
/// ones are no credentials, and hiding them would spoil unrelated words.
pub(crate) struct Hidden(Vec<String>);

const SHORTEST: usize = 8;
const MASK: &str = "***";

/// A URL's user and password as `Basic` has them after its name.
pub(crate) fn basic(url: &Url) -> String {
    STANDARD.encode(format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default())))
}

fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

impl Hidden {
    /// Collects the parts.
    pub(crate) fn of(url: &Url) -> Self {
        let words = url.path().split('/').chain(url.query().unwrap_or("").split(['&', '=']));
        let mut parts: Vec<String> = words
            .filter(|part| part.len() >= SHORTEST)
            .flat_map(|part| [part.to_owned(), decoded(part)])
            .collect();
        // Whatever their length: whoever gave a password meant it.
        let (user, password) = (url.username(), url.password().unwrap_or(""));
        if !user.is_empty() || !password.is_empty() {
            parts.push(basic(url));
            parts.extend([user.to_owned(), decoded(user), password.to_owned(), decoded(password)]);
        }
        Hidden(parts).sorted()
    }

    /// Adds the values of headers that are marked as sensitive, and of each what follows a scheme such as `Bearer`.
    pub(crate) fn and_headers(mut self, headers: &HeaderMap) -> Self {
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let Ok(value) = value.to_str() else { continue };
            let words = value.split_ascii_whitespace().chain([value]);
            self.0.extend(words.filter(|part| part.len() >= SHORTEST).map(str::to_owned));
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
