//! The `webhooks` array: one entry in, one checked [`Endpoint`] or one reason why not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use globset::{GlobBuilder, GlobSetBuilder};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use ringback_model::{Endpoint, EndpointName, Format, Rate, Secret};
use ringback_webhook::format::{Destination, of_host};
use ringback_webhook::guard;

use super::node::{Node, Value};
use super::section::{Problems, Section, short};
use crate::env::Env;

/// Keys of the contract that this version does not have yet.
const LATER: &[&str] = &["template", "after", "supersede", "expires_after", "digest", "quiet_hours"];
const LATER_FORMATS: &[&str] = &["teams", "pagerduty", "template"];
/// Take a format that this version does not have yet; a raw event would only be refused there.
const PAGERDUTY_HOST: &str = "events.pagerduty.com";
const TEAMS_DOMAIN: &str = "webhook.office.com";
/// Where flows have their triggers: most of those that take webhooks post a card to Teams, and some do not.
const FLOW_HOSTS: &[&str] = &["logic.azure.com", "powerplatform.com"];

/// The entries that cannot be used. What is pending of them waits until they are right again: only an entry that is
/// gone has its deliveries cancelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The names of those that have one.
    pub names: BTreeSet<EndpointName>,
    /// One has no name that can be read: any queue may be its.
    pub is_nameless: bool,
}

impl Skipped {
    /// Whether a queue may be that of a skipped entry.
    pub fn may_own(&self, queue: &EndpointName) -> bool {
        self.is_nameless || self.names.contains(queue)
    }
}

/// What entries are read by.
pub(super) struct Around<'a> {
    pub(super) env: &'a Env,
    /// What paths are relative to.
    pub(super) base: &'a Path,
    /// The waits of an entry that has none.
    pub(super) backoff: &'a [Duration],
    /// Where an empty secret is none: lazyagent writes every key of its `config.json`.
    pub(super) is_json: bool,
}

/// Reads every entry. A bad one is left out with one warning that names the entry and what is wrong.
pub(super) fn read(
    entries: &[Node],
    around: &Around<'_>,
    problems: &RefCell<Problems>,
) -> (Vec<Endpoint>, Skipped) {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut skipped = Skipped::default();
    for (index, node) in entries.iter().enumerate() {
        let own = RefCell::new(Problems::default());
        let path = format!("webhooks[{index}]");
        let without = if around.is_json { without_empty_secret(node) } else { None };
        if without.is_some() {
            own.borrow_mut().warnings.push("an empty secret counts as none".to_owned());
        }
        let section = Section::new(&path, without.as_ref().unwrap_or(node), &own);
        let name = section.text("name").filter(|n| !n.trim().is_empty());
        let shown = match &name {
            Some(name) => format!("webhook {:?}", name.chars().take(64).collect::<String>()),
            None => path.clone(),
        };
        let endpoint = entry(&section, name.clone(), around, &own);
        section.finish();
        let own = own.into_inner();
        problems.borrow_mut().files.extend(own.files);
        let mut skip = own.errors;
        if let Some(e) = &endpoint
            && endpoints.iter().any(|known| known.name == e.name)
        {
            skip.push("name is taken by an earlier entry".to_owned());
        }
        let mut problems = problems.borrow_mut();
        match endpoint {
            Some(endpoint) if skip.is_empty() => {
                problems.warnings.extend(own.warnings.into_iter().map(|w| format!("{shown}: {w}")));
                endpoints.push(endpoint);
            }
            _ => {
                problems.warnings.push(format!("{shown} is skipped: {}", skip.join("; ")));
                skipped.is_nameless |= name.is_none();
                skipped.names.extend(name.map(EndpointName::new));
            }
        }
    }
    (endpoints, skipped)
}

fn entry(
    s: &Section<'_>,
    name: Option<String>,
    around: &Around<'_>,
    problems: &RefCell<Problems>,
) -> Option<Endpoint> {
    let env = around.env;
    if name.is_none() {
        s.error("name", "a name is required");
    }
    for key in LATER {
        if s.has(key) {
            s.error(key, "this version does not have this key yet");
        }
    }
    include(s);
    let url = url(s);
    let format = format(s, url.as_ref(), problems);
    let secrets = secrets(s, around, problems);
    let events = words(s, "events");
    let agents = words(s, "agents");
    let reasons = words(s, "reasons");
    let projects = projects(s, env);
    let runs = s.flag("runs").unwrap_or(false);
    let enabled = s.flag("enabled").unwrap_or(true);
    let timeout = s.duration("timeout").unwrap_or(Duration::from_secs(10));
    if timeout.is_zero() {
        s.error("timeout", "expected more than 0s");
    }
    let backoff = s.durations("backoff").unwrap_or_else(|| around.backoff.to_vec());
    let concurrency = s.whole("concurrency", 1, 1024).unwrap_or(4);
    let headers = headers(s, env);
    let ordered = s.flag("ordered").unwrap_or(false);
    let rate = s.text("rate").and_then(|text| match text.parse::<Rate>() {
        Ok(rate) => Some(rate),
        Err(e) => {
            s.error("rate", &format!("found {:?}: {e}", short(&text)));
            None
        }
    });
    let allow = allow(s);
    Some(Endpoint {
        name: EndpointName::new(name?),
        url: Secret::new(String::from(url?)),
        secrets: secrets?,
        events: events?,
        agents: agents?,
        projects: projects?,
        reasons: reasons?,
        runs,
        enabled,
        format: format?,
        timeout,
        backoff,
        concurrency: usize::try_from(concurrency).unwrap_or(4),
        headers: headers?,
        ordered,
        rate,
        allow: allow?,
    })
}

const NO_HOST: &str = "not a URL with scheme and host; expected http://HOST/… or https://HOST/…";

/// Whether a host is written where it belongs. The parser is lenient as browsers are: it takes `http:x` and `http:///x`
/// for the host `x`.
fn names_a_host(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        && !rest.is_empty()
        && !rest.starts_with(['/', '\\', '?', '#'])
}

/// Nothing can be included yet: only the empty list, which is the default, may be written.
fn include(s: &Section<'_>) {
    if let Some(word) = s.text_or_texts("include").unwrap_or_default().first() {
        let what = format!("found {:?}: this version does not have this key yet", short(word));
        s.error("include", &format!("{what}; leave the list empty"));
    }
}

fn url(s: &Section<'_>) -> Option<url::Url> {
    let Some(text) = s.text("url") else {
        if !s.has("url") {
            s.error("url", "a url is required");
        }
        return None;
    };
    // The value may hold credentials, so that no part of it is repeated.
    let parsed = url::Url::parse(text.trim()).ok();
    match parsed {
        Some(url) if matches!(url.scheme(), "http" | "https") && !names_a_host(text.trim()) => {
            s.error("url", NO_HOST);
            None
        }
        Some(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(url),
        Some(url) if !matches!(url.scheme(), "http" | "https") => {
            let scheme: String = url.scheme().chars().take(16).collect();
            s.error("url", &format!("scheme {scheme:?} is not supported; valid: http https"));
            None
        }
        _ => {
            s.error("url", NO_HOST);
            None
        }
    }
}

/// The entry's word, else the host's format. The URL has to say what the format needs to know.
fn format(s: &Section<'_>, url: Option<&url::Url>, problems: &RefCell<Problems>) -> Option<Format> {
    let host = url.and_then(url::Url::host_str).unwrap_or_default();
    let format = match (s.text("format"), later_format(host)) {
        (Some(word), _) => named_format(s, &word)?,
        (None, _) if s.has("format") => return None,
        (None, Some(later)) => {
            let what = format!(
                "{host} takes the format {later:?}, which this version does not have yet; \
                 format = \"json\" sends the event as it is"
            );
            s.error("format", &what);
            return None;
        }
        (None, None) => url.and_then(of_host).unwrap_or(Format::Json),
    };
    if !s.has("format") && FLOW_HOSTS.iter().any(|domain| is_below(host, domain)) {
        let what = format!(
            "{host} may be a flow that posts to Teams: it would take the event and post nothing; \
             format = \"json\" says that this is meant"
        );
        problems.borrow_mut().warnings.push(what);
    }
    if let Some(Err(misfit)) = url.map(|url| Destination::of(format, url.as_str())) {
        s.error("url", &misfit.to_string());
        return None;
    }
    Some(format)
}

/// The format that a host takes, if this version does not have it yet.
fn later_format(host: &str) -> Option<&'static str> {
    match host {
        PAGERDUTY_HOST => Some("pagerduty"),
        _ if is_below(host, TEAMS_DOMAIN) => Some("teams"),
        _ => None,
    }
}

/// Whether a host is a domain or below it.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
}

fn named_format(s: &Section<'_>, word: &str) -> Option<Format> {
    let error = match Format::from_str(word) {
        Ok(format) => return Some(format),
        Err(_) if LATER_FORMATS.contains(&word.to_ascii_lowercase().as_str()) => {
            let valid: Vec<&str> = Format::ALL.iter().map(|format| format.as_str()).collect();
            format!("this version does not have the format {word:?} yet; valid: {}", valid.join(" "))
        }
        Err(e) => format!("found {:?}: {e}", short(word)),
    };
    s.error("format", &error);
    None
}

fn secrets(s: &Section<'_>, around: &Around<'_>, problems: &RefCell<Problems>) -> Option<Vec<Secret>> {
    let Around { env, base, .. } = around;
    let given = [s.has("secret"), s.has("secret_env"), s.has("secret_file")];
    if given.iter().filter(|g| **g).count() > 1 {
        s.error("secret", "give exactly one of secret, secret_env, secret_file");
        return None;
    }
    let values = if given[0] {
        s.text_or_texts("secret")?
    } else if given[1] {
        let variable = s.text("secret_env")?;
        match env.get(&variable) {
            Some(value) => vec![value.to_owned()],
            None => {
                s.error("secret_env", &format!("the variable {variable:?} is not set"));
                return None;
            }
        }
    } else if given[2] {
        let path = base.join(env.expand(&s.text("secret_file")?));
        problems.borrow_mut().files.push(path.clone());
        match std::fs::read_to_string(&path) {
            Ok(text) => vec![text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r').to_owned()],
            Err(e) => {
                let why = match e.kind() {
                    ErrorKind::InvalidData => {
                        format!("{} is not text; write a binary key as whsec_ and its base64", path.display())
                    }
                    kind => format!("cannot read {}: {kind}", path.display()),
                };
                s.error("secret_file", &why);
                return None;
            }
        }
    } else {
        return Some(Vec::new());
    };
    if values.is_empty() || values.iter().any(String::is_empty) {
        s.error("secret", "a secret may not be empty; leave the key out to send unsigned");
        return None;
    }
    if values.iter().any(|v| v.chars().count() < 16) {
        problems.borrow_mut().warnings.push("a secret is shorter than 16 characters".to_owned());
    }
    Some(values.into_iter().map(Secret::new).collect())
}

/// Headers that ringback writes itself, or that HTTP's framing hangs on.
const OWN_HEADERS: &[&str] = &["host", "content-length", "transfer-encoding", "content-type"];
const OWN_PREFIXES: &[&str] = &["webhook-", "x-lazyagent-", "x-ringback-"];

/// Extra headers. Their values are secrets, so that no message shows one; `None` = one of them is wrong.
fn headers(s: &Section<'_>, env: &Env) -> Option<Vec<(String, Secret)>> {
    let bad = |what: String| {
        s.error("headers", &what);
        None
    };
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (name, value) in s.pairs("headers") {
        let shown: String = name.chars().take(64).collect();
        let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else {
            return bad(format!("{shown:?} is no header name"));
        };
        let lower = name.as_str();
        if OWN_HEADERS.contains(&lower) || OWN_PREFIXES.iter().any(|p| lower.starts_with(p)) {
            let own = OWN_HEADERS.join(" ");
            return bad(format!(
                "{lower:?} is ringback's own; not allowed: {own} {}*",
                OWN_PREFIXES.join("* ")
            ));
        }
        if headers.iter().any(|(known, _)| known == lower) {
            return bad(format!("{lower:?} is given twice"));
        }
        let value = match with_variables(&value, env) {
            Ok(value) => value,
            Err(what) => return bad(format!("{lower:?}: {what}")),
        };
        if value.chars().any(char::is_control) || HeaderValue::from_str(&value).is_err() {
            return bad(format!("the value of {lower:?} holds a character that no header may have"));
        }
        headers.push((lower.to_owned(), Secret::new(value)));
    }
    Some(headers)
}

/// The text with every `${NAME}` replaced by the variable's value.
fn with_variables(text: &str, env: &Env) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err("a \"${\" has no \"}\"".to_owned());
        };
        let Some(value) = env.get(name) else {
            let name: String = name.chars().take(64).collect();
            return Err(format!("the variable {name:?} is not set"));
        };
        expanded.push_str(before);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The names of the variables in a text.
fn variables(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("${").skip(1).filter_map(|part| Some(part.split_once('}')?.0.to_owned()))
}

fn words<T>(s: &Section<'_>, key: &'static str) -> Option<BTreeSet<T>>
where
    T: FromStr<Err = ringback_model::ids::UnknownWord> + Ord,
{
    let Some(texts) = s.texts(key) else {
        return (!s.has(key)).then(BTreeSet::new);
    };
    let mut set = BTreeSet::new();
    let mut good = true;
    for text in texts {
        match text.trim().parse() {
            Ok(word) => {
                set.insert(word);
            }
            Err(e) => {
                s.error(key, &format!("found {:?}: {e}", short(&text)));
                good = false;
            }
        }
    }
    good.then_some(set)
}

/// Networks, or single addresses. One that could have no effect is a mistake.
fn allow(s: &Section<'_>) -> Option<BTreeSet<IpNet>> {
    const EXPECTED: &str = "an address or a network such as \"10.0.0.0/8\"";
    let Some(texts) = s.texts("allow") else {
        return (!s.has("allow")).then(BTreeSet::new);
    };
    let mut nets = BTreeSet::new();
    let mut good = true;
    for text in texts {
        let text = text.trim();
        let shown: String = text.chars().take(64).collect();
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let problem = match &net {
            Ok(net) => guard::never_allowed(net).map(|range| format!("is never allowed: {range}")),
            Err(_) => Some(format!("is not {EXPECTED}")),
        };
        if let Some(problem) = &problem {
            s.error("allow", &format!("{shown:?} {problem}"));
            good = false;
        }
        // Without the bits that mean nothing, so that equal networks are equal.
        nets.extend(net.map(|net| net.trunc()));
    }
    good.then_some(nets)
}

/// No wildcard = that directory and all below; `~` is the home directory.
fn projects(s: &Section<'_>, env: &Env) -> Option<Option<globset::GlobSet>> {
    let Some(patterns) = s.texts("projects") else {
        return (!s.has("projects")).then_some(None);
    };
    if patterns.is_empty() {
        return Some(None);
    }
    let mut globs = GlobSetBuilder::new();
    for pattern in patterns {
        let full = env.expand(pattern.trim()).to_string_lossy().trim_end_matches('/').to_owned();
        let plain = !full.contains(['*', '?', '[', '{']);
        let variants = if plain { vec![full.clone(), format!("{full}/**")] } else { vec![full] };
        for variant in variants {
            match GlobBuilder::new(&variant).build() {
                Ok(glob) => {
                    globs.add(glob);
                }
                Err(e) => {
                    s.error("projects", &format!("found {:?}: not a glob: {}", short(&variant), e.kind()));
                    return None;
                }
            }
        }
    }
    match globs.build() {
        Ok(set) => Some(Some(set)),
        Err(e) => {
            s.error("projects", &format!("not a glob: {}", e.kind()));
            None
        }
    }
}

/// An entry with an empty text as its secret, as if the key were not there; `None` = it has none such.
fn without_empty_secret(node: &Node) -> Option<Node> {
    if !matches!(&get(node, "secret")?.value, Value::Text(text) if text.is_empty()) {
        return None;
    }
    let mut node = node.clone();
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|(key, _)| key != "secret");
    }
    Some(node)
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
        _ => None,
    }
}

/// Variables that entries name for their secrets, good entries or not.
pub(super) fn secret_variables(root: &Node) -> Vec<String> {
    let Some(Node { value: Value::List(entries), .. }) = get(root, "webhooks") else { return Vec::new() };
    let mut names = Vec::new();
    for entry in entries {
        if let Some(Node { value: Value::Text(name), .. }) = get(entry, "secret_env") {
            names.push(name.clone());
        }
        if let Some(Node { value: Value::Table(headers), .. }) = get(entry, "headers") {
            for (_, node) in headers {
                if let Value::Text(text) = &node.value {
                    names.extend(variables(text));
                }
            }
        }
    }
    names
}
