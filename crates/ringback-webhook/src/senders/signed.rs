//! Senders that put an HMAC over the body, and perhaps more, into a header.

use std::time::Duration;

use http::HeaderName;
use ringback_model::{Secret, Timestamp};

use super::algorithm::{Algorithm, Encoding};
use super::prove::{self, Parts, TRIAL_ID};
use super::{Incoming, Refused, Unusable, body, headers};

/// A scheme that is described instead of known.
#[derive(Clone, Debug)]
pub struct HmacSpec {
    /// The header with the signature.
    pub header: String,
    /// What stands before the signature in it, such as `sha256=`; may be empty.
    pub prefix: String,
    /// The hash.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub encoding: Encoding,
    /// What is signed: text with `{body}` and, where the sender signs them, `{timestamp}` and `{id}`.
    pub signed: String,
    /// Where `{timestamp}` is found and how far off it may be; `None`: a request can be replayed.
    pub timestamp: Option<TimestampSpec>,
    /// The header with the delivery's id.
    pub id_header: Option<String>,
    /// The header with the event's name.
    pub event_header: Option<String>,
}

/// The time of sending.
#[derive(Clone, Debug)]
pub struct TimestampSpec {
    /// The header.
    pub header: String,
    /// What it counts.
    pub unit: Unit,
    /// How far it may be from now, before or after ([`crate::verify::TOLERANCE`] where nothing else is asked for).
    pub tolerance: Duration,
}

/// What a timestamp counts since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub enum Unit {
    /// Seconds.
    #[default]
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
}

/// A scheme, ready to verify.
#[derive(Debug)]
pub(super) struct Signed {
    /// Exactly one of them has to be there.
    pub(super) headers: Vec<HeaderName>,
    /// Before each signature.
    pub(super) prefix: String,
    /// Between the elements of the header; `None`: the header is one signature. Elements that do not begin with the
    /// prefix are passed over.
    pub(super) separator: Option<char>,
    pub(super) algorithm: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) template: Vec<Part>,
    pub(super) id: Option<HeaderName>,
    pub(super) timestamp: Option<Sent>,
    pub(super) secrets: Vec<Secret>,
}

/// A piece of what is signed.
#[derive(Debug)]
pub(super) enum Part {
    Text(String),
    Body,
    Timestamp,
    Id,
}

/// The time of sending.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) place: Place,
    pub(super) unit: Unit,
    pub(super) tolerance: Duration,
}

/// Where the time of sending is found.
#[derive(Debug)]
pub(super) enum Place {
    Header(HeaderName),
    /// The element of the signature header that begins so.
    Element(&'static str),
    /// A field of the signed body.
    Body(&'static str),
}

impl Signed {
    pub(super) fn new(spec: &HmacSpec, secrets: Vec<Secret>) -> Result<Self, Unusable> {
        let template = template(&spec.signed)?;
        if template.iter().filter(|part| matches!(part, Part::Body)).count() != 1 {
            return Err(Unusable::BodyNotSigned);
        }
        if template.iter().any(|part| matches!(part, Part::Timestamp)) != spec.timestamp.is_some() {
            return Err(Unusable::TimestampNotSigned);
        }
        let id = if template.iter().any(|part| matches!(part, Part::Id)) {
            Some(headers::name(spec.id_header.as_deref().ok_or(Unusable::NoIdHeader)?)?)
        } else {
            None
        };
        let sent = |sent: &TimestampSpec| {
            let place = Place::Header(headers::name(&sent.header)?);
            Ok(Sent { place, unit: sent.unit, tolerance: sent.tolerance })
        };
        Ok(Signed {
            headers: vec![headers::name(&spec.header)?],
            prefix: spec.prefix.clone(),
            separator: None,
            algorithm: spec.algorithm,
            encoding: spec.encoding,
            template,
            id,
            timestamp: spec.timestamp.as_ref().map(sent).transpose()?,
            secrets,
        })
    }

    pub(super) fn has_secret(&self) -> bool {
        !self.secrets.is_empty()
    }

    pub(super) fn names(&self) -> &[HeaderName] {
        &self.headers
    }

    pub(super) fn check(&self, request: &Incoming<'_>, now: Timestamp) -> Result<(), Refused> {
        let header = self.header(request);
        let elements: Vec<&str> = match (&header, self.separator) {
            (Ok(value), Some(separator)) => value.split(separator).map(str::trim).collect(),
            (Ok(value), None) => vec![value],
            (Err(_), _) => Vec::new(),
        };
        let signatures: Vec<Vec<u8>> = elements
            .iter()
            .filter_map(|element| self.encoding.decode(element.strip_prefix(self.prefix.as_str())?))
            .collect();
        let id = self.id.as_ref().map(|id| headers::one(request.headers, id)).transpose();
        let sent = self.sent(request, &elements);
        let parts: Vec<&[u8]> = self
            .template
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_bytes(),
                Part::Body => request.body,
                Part::Timestamp => sent.as_ref().ok().copied().flatten().unwrap_or_default().as_bytes(),
                Part::Id => id.as_ref().ok().copied().flatten().unwrap_or_default().as_bytes(),
            })
            .collect();
        // What is missing is told after the hashing, so that it takes as long as what is wrong.
        let fits = self.algorithm.fits(&self.secrets, &parts, &signatures);
        if self.secrets.is_empty() {
            return Err(Refused::NoSecret);
        }
        header?;
        id?;
        let sent = sent?;
        if !fits {
            return Err(Refused::NoMatch);
        }
        let Some(rule) = &self.timestamp else { return Ok(()) };
        // The body is read only once it is proven.
        let in_body = match rule.place {
            Place::Body(field) => body::text(request.body, &[field]),
            Place::Header(_) | Place::Element(_) => None,
        };
        within(sent.or(in_body.as_deref()).unwrap_or_default(), rule.unit, rule.tolerance, now)
    }

    /// The headers of a request that is sent at `now`; the body where the time stands in it.
    pub(super) fn prove(&self, request: &Incoming<'_>, now: Timestamp) -> Option<Parts> {
        let (secret, header) = (self.secrets.first()?, self.headers.first()?);
        let time = self.timestamp.as_ref().map(|rule| (&rule.place, rule.unit.written(now)));
        let body = match &time {
            Some((Place::Body(field), time)) => Some(prove::with_number(request.body, field, time)),
            _ => None,
        };
        let id = self.id.as_ref().map(|name| (name, headers::one(request.headers, name).unwrap_or(TRIAL_ID)));
        let parts: Vec<&[u8]> = self
            .template
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_bytes(),
                Part::Body => body.as_deref().unwrap_or(request.body),
                Part::Timestamp => time.as_ref().map_or("", |(_, time)| time).as_bytes(),
                Part::Id => id.map_or("", |(_, id)| id).as_bytes(),
            })
            .collect();
        let signature = self.algorithm.mac(secret.reveal().as_bytes(), &parts);
        let mut value = format!("{}{}", self.prefix, self.encoding.encode(&signature));
        let mut proof: Vec<(HeaderName, String)> =
            id.into_iter().map(|(name, id)| (name.clone(), id.to_owned())).collect();
        match time {
            Some((Place::Element(prefix), time)) => value = format!("{prefix}{time},{value}"),
            Some((Place::Header(name), time)) => proof.push((name.clone(), time)),
            Some((Place::Body(_), _)) | None => {}
        }
        proof.push((header.clone(), value));
        Some((proof, body))
    }

    fn header<'a>(&self, request: &Incoming<'a>) -> Result<&'a str, Refused> {
        let mut present = self.headers.iter().filter(|name| request.headers.contains_key(*name));
        let name = present.next().or(self.headers.first()).ok_or(Refused::NoMatch)?;
        match present.next() {
            Some(second) => Err(Refused::Doubled(second.clone())),
            None => headers::one(request.headers, name),
        }
    }

    /// The timestamp as it is written outside the body; `None` where it is not outside, or there is none.
    fn sent<'a>(&self, request: &Incoming<'a>, elements: &[&'a str]) -> Result<Option<&'a str>, Refused> {
        match self.timestamp.as_ref().map(|sent| &sent.place) {
            None | Some(Place::Body(_)) => Ok(None),
            Some(Place::Header(name)) => headers::one(request.headers, name).map(Some),
            Some(Place::Element(prefix)) => {
                let mut found = elements.iter().filter_map(|element| element.strip_prefix(prefix));
                match (found.next(), found.next()) {
                    (Some(one), None) => Ok(Some(one)),
                    _ => Err(Refused::BadTimestamp),
                }
            }
        }
    }
}

/// Whether the timestamp is near enough to now. It is digits alone: no sign, no fraction, no space.
pub(super) fn within(text: &str, unit: Unit, tolerance: Duration, now: Timestamp) -> Result<(), Refused> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused::BadTimestamp);
    }
    let sent: u64 = text.parse().map_err(|_| Refused::BadTimestamp)?;
    let (now, tolerance) = match unit {
        Unit::Seconds => (now.as_seconds(), u128::from(tolerance.as_secs())),
        Unit::Milliseconds => (now.as_millis(), tolerance.as_millis()),
    };
    let off = u64::try_from(now).unwrap_or(0).abs_diff(sent);
    if u128::from(off) <= tolerance { Ok(()) } else { Err(Refused::OutsideTolerance) }
}

/// Reads what is signed.
fn template(text: &str) -> Result<Vec<Part>, Unusable> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (before, from) = rest.split_at(open);
        let end = from.find('}').ok_or_else(|| Unusable::UnknownPlaceholder(from[1..].to_owned()))?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(match &from[1..end] {
            "body" => Part::Body,
            "timestamp" | "ts" => Part::Timestamp,
            "id" => Part::Id,
            other => return Err(Unusable::UnknownPlaceholder(other.to_owned())),
        });
        rest = &from[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}
