//! A receiver believes exactly what the holder of a secret sent, and recently.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use ringback_model::event::EventKind;
use ringback_model::{EventId, Secret, Timestamp};
use ringback_webhook::Key;
use ringback_webhook::request::Post;
use ringback_webhook::verify::{Invalid, TOLERANCE, Verdict, verify};
use uuid::Uuid;

const SENT: Timestamp = Timestamp::from_millis(1_779_201_000_000);
const BODY: &[u8] = b"{\"to\":\"waiting\"}";

fn keys(secrets: &[&str]) -> Vec<Key> {
    secrets.iter().map(|s| Key::new(&Secret::new(*s))).collect()
}

fn sent(secrets: &[&str]) -> HeaderMap {
    let keys = keys(secrets);
    let event_id = EventId(Uuid::from_u128(7));
    Post { keys: &keys, event_id, kind: EventKind::Ping, body: BODY, attempt: 1, at: SENT }.headers()
}

fn check(headers: &HeaderMap, secrets: &[&str]) -> Verdict {
    verify(headers, BODY, &keys(secrets), SENT, TOLERANCE)
}

const BOTH: Verdict = Verdict { lazyagent: Ok(()), standard: Ok(()) };
const NEITHER: Verdict = Verdict { lazyagent: Err(Invalid::NoMatch), standard: Err(Invalid::NoMatch) };

#[test]
fn what_was_signed_is_valid_in_both_schemes() {
    for secret in ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "plain"] {
        let verdict = check(&sent(&[secret]), &[secret]);
        assert_eq!(verdict, BOTH);
        assert!(verdict.is_authentic());
    }
}

#[test]
fn another_secret_another_body_or_no_secret_matches_nothing() {
    let headers = sent(&["a"]);
    assert_eq!(check(&headers, &["b"]), NEITHER);
    assert_eq!(check(&headers, &[]), NEITHER);
    assert_eq!(verify(&headers, b"{}", &keys(&["a"]), SENT, TOLERANCE), NEITHER);
    assert!(!NEITHER.is_authentic());
}

#[test]
fn every_key_is_tried_against_every_signature() {
    let rotating = sent(&["new", "old"]);
    assert_eq!(check(&rotating, &["other", "new"]), BOTH);
    // The lazyagent header is the first secret's alone, so a receiver that has only the old one reads the other.
    let old = check(&rotating, &["other", "old"]);
    assert_eq!(old, Verdict { lazyagent: Err(Invalid::NoMatch), standard: Ok(()) });
    assert!(old.is_authentic());
}

#[test]
fn signatures_of_unknown_versions_and_malformed_ones_are_passed_over() {
    let mut headers = sent(&["a"]);
    let right = headers["webhook-signature"].to_str().unwrap().to_owned();
    let mixed = format!("v1a,AAAA v2, v1 v1, v1,! {right} x");
    headers.insert("webhook-signature", HeaderValue::from_str(&mixed).unwrap());
    assert_eq!(check(&headers, &["a"]).standard, Ok(()));
    let renamed = right.replace("v1,", "v1a,");
    headers.insert("webhook-signature", HeaderValue::from_str(&renamed).unwrap());
    assert_eq!(check(&headers, &["a"]).standard, Err(Invalid::NoMatch));
}

#[test]
fn hex_digits_may_be_of_either_case_and_must_be_all_there() {
    let mut headers = sent(&["a"]);
    let hex = headers["x-lazyagent-signature"].to_str().unwrap()["sha256=".len()..].to_owned();
    for (value, want) in [
        (format!("sha256={}", hex.to_uppercase()), Ok(())),
        (hex.clone(), Err(Invalid::NoMatch)),
        (format!("sha1={hex}"), Err(Invalid::NoMatch)),
        (format!("sha256={}", &hex[..62]), Err(Invalid::NoMatch)),
        (format!("sha256={hex}00"), Err(Invalid::NoMatch)),
        (format!("sha256={}zz", &hex[..62]), Err(Invalid::NoMatch)),
        ("sha256=".to_owned(), Err(Invalid::NoMatch)),
    ] {
        headers.insert("x-lazyagent-signature", HeaderValue::from_str(&value).unwrap());
        assert_eq!(check(&headers, &["a"]).lazyagent, want, "{value}");
    }
}

#[test]
fn a_missing_header_is_named() {
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut headers = sent(&["a"]);
        headers.remove(name);
        assert_eq!(check(&headers, &["a"]).standard, Err(Invalid::Missing(name)));
    }
    let mut headers = sent(&["a"]);
    headers.remove("x-lazyagent-signature");
    let verdict = check(&headers, &["a"]);
    assert_eq!(verdict.lazyagent, Err(Invalid::Missing("x-lazyagent-signature")));
    assert!(verdict.is_authentic(), "the other scheme vouches for it");
    assert!(!check(&HeaderMap::new(), &["a"]).is_authentic());
}

#[test]
fn a_timestamp_is_a_whole_number_of_seconds() {
    for value in ["", "soon", "-1", "+1779201000", "1779201000.0", "99999999999999999999999", "1779201000 "] {
        let mut headers = sent(&["a"]);
        headers.insert("webhook-timestamp", HeaderValue::from_str(value).unwrap());
        assert_eq!(check(&headers, &["a"]).standard, Err(Invalid::BadTimestamp), "{value:?}");
    }
}

#[test]
fn a_timestamp_may_be_five_minutes_off_either_way_and_no_more() {
    let headers = sent(&["a"]);
    let at = |now| verify(&headers, BODY, &keys(&["a"]), now, TOLERANCE);
    let second = Duration::from_secs(1);
    assert_eq!(at(SENT.plus(TOLERANCE)), BOTH);
    assert_eq!(at(SENT.minus(TOLERANCE)), BOTH);
    for now in [SENT.plus(TOLERANCE + second), SENT.minus(TOLERANCE + second), Timestamp::MIN] {
        let verdict = at(now);
        assert_eq!(verdict.standard, Err(Invalid::OutsideTolerance));
        assert!(!verdict.is_authentic(), "a replay is not believed because the other scheme has no time");
    }
}

#[test]
fn another_timestamp_or_id_than_was_signed_does_not_match() {
    for (name, value) in [("webhook-timestamp", "1779201001"), ("webhook-id", "other")] {
        let mut headers = sent(&["a"]);
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(check(&headers, &["a"]).standard, Err(Invalid::NoMatch), "{name}");
    }
}

proptest! {
    #[test]
    fn signing_and_verifying_are_inverse(
        secrets in proptest::collection::vec("[ -~]{1,40}", 1..4),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        seconds in 0i64..10_000_000_000,
        which in any::<prop::sample::Index>(),
    ) {
        let keys: Vec<Key> = secrets.iter().map(|s| Key::new(&Secret::new(s.as_str()))).collect();
        let at = Timestamp::from_millis(seconds * 1000);
        let event_id = EventId(Uuid::from_u128(1));
        let post = Post { keys: &keys, event_id, kind: EventKind::Ping, body: &body, attempt: 1, at };
        let one = [which.get(&keys).clone()];
        let verdict = verify(&post.headers(), &body, &one, at, Duration::ZERO);
        prop_assert_eq!(verdict.standard, Ok(()));
        prop_assert_eq!(verify(&post.headers(), &body, &keys, at, Duration::ZERO), BOTH);
    }

    #[test]
    fn no_header_value_ends_the_process_or_is_believed(
        id in ".*", timestamp in "(.*|[0-9]{1,25})", signature in ".*", lazyagent in ".*",
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signature),
            ("x-lazyagent-signature", lazyagent),
        ] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
        prop_assert!(!check(&headers, &["a"]).is_authentic());
    }
}
