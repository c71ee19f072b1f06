//! Durations and sizes as people write them: `"30s"`, `"1h30m"`, `"1 GiB"`.

use std::time::Duration;

/// Parses a duration: one or more number-unit pairs with units ms, s, m, h, d. No unit, no duration.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit_ms)?))?;
    }
    // A year is longer than any wait here means, and keeps every later sum far from overflow.
    (total <= Duration::from_secs(366 * 86_400)).then_some(total)
}

/// Parses a size in bytes: a number and B, KB, MB, GB (powers of ten) or KiB, MiB, GiB (powers of two).
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in
            [("30s", 30_000), ("500ms", 500), ("1h30m", 5_400_000), ("7d", 604_800_000), (" 2m ", 120_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "10y", "99999999999999999999s", "9999d", "1s x"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_take_both_kinds_of_units() {
        for (text, bytes) in [("1 GiB", 1 << 30), ("10 KiB", 10_240), ("5MB", 5_000_000), ("12", 12)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1 TiB!", "-1", "99999999999999999999"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
