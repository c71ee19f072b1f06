//! Proxies that the environment names, and which one a URL goes through.
//!
//! The variables are those of curl and most other programs, with the same meaning: `HTTP_PROXY`, `HTTPS_PROXY`,
//! `ALL_PROXY` and `NO_PROXY`, each in either case. They are an argument here: nothing reads the environment by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Url;

use crate::guard::{self, Denied, Network, Policy};
use crate::resolve::is_ours;

/// The proxies in force. Holds credentials, which its `Debug` does not show.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

/// A variable does not name a proxy that can be used. Its value is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is not the address of a proxy; expected http://HOST:PORT or https://HOST:PORT")]
pub struct BadProxy {
    /// Which one.
    pub variable: &'static str,
}

/// The proxy of one URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    /// Without credentials.
    pub(crate) url: Url,
    /// The same, as the connector takes it.
    pub(crate) uri: Uri,
    /// `Proxy-Authorization`.
    pub(crate) credentials: Option<HeaderValue>,
}

impl Proxies {
    /// From variables by name; an empty one counts as unset. `None` = no variable names a proxy.
    ///
    /// # Errors
    /// One of them is set and names none.
    pub fn from_variables<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Proxies>, BadProxy> {
        let either = |variable: &'static str| {
            let value = get(variable).or_else(|| get(&variable.to_ascii_lowercase()));
            (variable, value.map(str::trim).filter(|value| !value.is_empty()))
        };
        let proxy = |variable| {
            let (variable, Some(value)) = either(variable) else { return Ok("") };
            let alone = Proxies(Arc::new(Matcher::builder().all(value).build()));
            let is_usable = alone.of(&Uri::from_static("http://h/")).is_some();
            if is_usable { Ok(value) } else { Err(BadProxy { variable }) }
        };
        let (http, https, all) = (proxy("HTTP_PROXY")?, proxy("HTTPS_PROXY")?, proxy("ALL_PROXY")?);
        if [http, https, all].iter().all(|value| value.is_empty()) {
            return Ok(None);
        }
        let no = either("NO_PROXY").1.unwrap_or_default();
        let matcher = Matcher::builder().http(http).https(https).all(all).no(no).build();
        Ok(Some(Proxies(Arc::new(matcher))))
    }

    /// The proxy that a URL goes through; `None` = none.
    pub(crate) fn of_url(&self, url: &Url) -> Option<Proxy> {
        self.of(&url.as_str().parse().ok()?)
    }

    fn of(&self, uri: &Uri) -> Option<Proxy> {
        let found = self.0.intercept(uri)?;
        let mut credentials = found.basic_auth().cloned();
        if let Some(value) = &mut credentials {
            value.set_sensitive(true);
        }
        Proxy::at(found.uri().clone(), credentials)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies(***)")
    }
}

impl Proxy {
    /// `None` = nothing that can be asked in HTTP.
    fn at(uri: Uri, credentials: Option<HeaderValue>) -> Option<Proxy> {
        let url = Url::parse(&uri.to_string()).ok()?;
        matches!(url.scheme(), "http" | "https").then_some(Proxy { url, uri, credentials })
    }

    /// What the way to the proxy is judged by: whoever named it wants it reached, wherever it is, but not at what is
    /// never reached.
    pub(crate) fn policy(own_ports: &BTreeSet<u16>) -> Policy {
        let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Policy { network: Network::Local, allow: everywhere.into(), own_ports: own_ports.clone() }
    }

    /// Judges the proxy's address as far as it is written down.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn vet(&self, policy: &Policy) -> Result<(), Denied> {
        guard::vet_url(&self.url, policy, is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &'static str)]) -> Result<Option<Proxies>, BadProxy> {
        Proxies::from_variables(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| *value))
    }

    /// Where a URL goes: the proxy's own, or `-`.
    fn way(variables: &[(&str, &'static str)], url: &str) -> String {
        let proxies = proxies(variables).unwrap();
        let proxy = proxies.and_then(|p| p.of_url(&Url::parse(url).unwrap()));
        proxy.map_or_else(|| "-".to_owned(), |p| p.url.to_string())
    }

    #[test]
    fn the_variables_mean_what_they_mean_elsewhere() {
        let both = [("HTTP_PROXY", "http://p:1"), ("https_proxy", "q:2"), ("NO_PROXY", "in.test,10.0.0.0/8")];
        for (url, want) in [
            ("http://h/", "http://p:1/"),
            ("https://h/", "http://q:2/"),
            ("https://in.test/", "-"),
            ("http://a.in.test/", "-"),
            ("http://notin.test/", "http://p:1/"),
            ("http://10.1.2.3/", "-"),
            ("http://11.1.2.3/", "http://p:1/"),
        ] {
            assert_eq!(way(&both, url), want, "{url}");
        }
        assert_eq!(
            way(&[("ALL_PROXY", "https://p:1"), ("HTTP_PROXY", "http://q:2")], "http://h/"),
            "http://q:2/"
        );
        assert_eq!(way(&[("ALL_PROXY", "https://p:1"), ("HTTP_PROXY", "")], "http://h/"), "https://p:1/");
        assert_eq!(way(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "*")], "http://h/"), "-");
        assert!(proxies(&[("NO_PROXY", "h")]).unwrap().is_none());
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_value() {
        for value in ["socks5://u:hunter2@p:1", "ftp://hunter2", "http://", "hunter2 hunter2"] {
            let error = proxies(&[("ALL_PROXY", value)]).unwrap_err().to_string();
            assert!(error.starts_with("ALL_PROXY is not") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_become_a_header_and_are_not_shown() {
        let proxies = proxies(&[("HTTP_PROXY", "http://user:hunter2@p:1")]).unwrap().unwrap();
        let proxy = proxies.of_url(&Url::parse("http://h/").unwrap()).unwrap();
        assert_eq!(proxy.url.as_str(), "http://p:1/");
        let header = proxy.credentials.unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNlcjpodW50ZXIy");
        assert!(!format!("{proxies:?} {header:?}").contains("hunter2"));
    }

    #[test]
    fn a_proxy_may_be_anywhere_but_where_nothing_is_reached() {
        let policy = Proxy::policy(&[7421].into());
        for (url, is_allowed) in [
            ("http://10.0.0.1:3128/", true),
            ("http://127.0.0.1:3128/", true),
            ("http://[fd00::1]:3128/", true),
            ("http://proxy.test:3128/", true),
            ("http://169.254.169.254/", false),
            ("http://metadata.google.internal/", false),
            ("http://127.0.0.1:7421/", false),
        ] {
            let proxy = Proxy::at(url.parse().unwrap(), None).unwrap();
            assert_eq!(proxy.vet(&policy).is_ok(), is_allowed, "{url}");
        }
    }
}
