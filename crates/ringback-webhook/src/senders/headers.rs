//! Headers, read strictly: one value, printable, or a refusal.

use http::{HeaderMap, HeaderName};

use super::{Refused, Unusable};

/// The one value of a header.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| Refused::Missing(name.clone()))?;
    if values.next().is_some() {
        return Err(Refused::Doubled(name.clone()));
    }
    value.to_str().map_err(|_| Refused::Unreadable(name.clone()))
}

/// The name of a header out of a configuration.
pub(super) fn name(text: &str) -> Result<HeaderName, Unusable> {
    text.parse().map_err(|_| Unusable::NotAHeader(text.to_owned()))
}
