//! Where a proven request says what it is: a header, or a field of its body.

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Incoming, headers, twilio};

/// The longest name or id that is kept, in bytes.
const MAX_NAME: usize = 255;

/// A place where something is said.
#[derive(Debug)]
pub(super) enum Source {
    Header(HeaderName),
    /// A string or a number of the JSON body, under these keys.
    Field(&'static [&'static str]),
    /// Twilio's form.
    TwilioMessage,
    /// The same bytes are the same delivery.
    BodyHash,
}

/// The first name that is said; what is too long or not printable ASCII is not said.
pub(super) fn first(sources: &[Source], request: &Incoming<'_>) -> Option<String> {
    let said = |source: &Source| match source {
        Source::Header(name) => headers::one(request.headers, name).ok().map(str::to_owned),
        Source::Field(path) => text(request.body, path),
        Source::TwilioMessage => twilio::message_id(request.body),
        Source::BodyHash => Some(hex::encode(Sha256::digest(request.body))),
    };
    let is_name = |text: &String| {
        !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|b| matches!(b, b' '..=b'~'))
    };
    sources.iter().filter_map(said).find(is_name)
}

/// A string of a JSON body, or a number as it is written. Nothing else of the body is built.
pub(super) fn text(body: &[u8], path: &[&str]) -> Option<String> {
    let (last, above) = path.split_last()?;
    let mut object = body;
    for key in above {
        object = field(object, key)?.get().as_bytes();
    }
    let value = field(object, last)?.get();
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok(),
        b'0'..=b'9' => Some(value.to_owned()),
        _ => None,
    }
}

fn field<'a>(object: &'a [u8], key: &str) -> Option<&'a RawValue> {
    let mut json = serde_json::Deserializer::from_slice(object);
    Pick(key).deserialize(&mut json).ok()?
}

/// Takes one value of an object; of a key that is there twice, the last.
struct Pick<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
