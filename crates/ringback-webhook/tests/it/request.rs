//! The header table of outbound.md.

use ringback_model::event::EventKind;
use ringback_model::{EventId, Secret, Timestamp};
use ringback_webhook::Key;
use ringback_webhook::request::Post;

const ID: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

/// Every header as `name: value`, sorted.
fn headers(secrets: &[&str], kind: EventKind, body: &[u8]) -> Vec<String> {
    let keys: Vec<Key> = secrets.iter().map(|s| Key::new(&Secret::new(*s))).collect();
    let event_id: EventId = ID.parse().unwrap();
    let at = Timestamp::from_millis(1_779_201_000_999);
    let headers = Post { keys: &keys, event_id, kind, body, attempt: 3, at }.headers();
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[test]
fn without_a_secret_there_is_no_signature_and_no_webhook_header() {
    assert_eq!(
        headers(&[], EventKind::StateTransition, b"{}"),
        [
            "content-type: application/json".to_owned(),
            format!("user-agent: ringback/{}", env!("CARGO_PKG_VERSION")),
            format!("x-lazyagent-delivery: {ID}"),
            "x-lazyagent-event: state_transition".to_owned(),
            "x-ringback-attempt: 3".to_owned(),
        ]
    );
}

#[test]
fn with_secrets_the_first_signs_for_lazyagent_and_each_signs_for_standard_webhooks() {
    // The signatures were made with Python's hmac module.
    assert_eq!(
        headers(&["new secret", "whsec_b2xkIHNlY3JldA=="], EventKind::Ping, b"{}"),
        [
            "content-type: application/json".to_owned(),
            format!("user-agent: ringback/{}", env!("CARGO_PKG_VERSION")),
            format!("webhook-id: {ID}"),
            "webhook-signature: v1,Mt4Gwtje9pJmdHNgB0ZBvRlIVRhP764R9sDVM1jYZOU= v1,mfxuAOTNHcRBNw0NJO87+lyXakssEXF0modWti3iZoM=".to_owned(),
            "webhook-timestamp: 1779201000".to_owned(),
            format!("x-lazyagent-delivery: {ID}"),
            "x-lazyagent-event: ping".to_owned(),
            "x-lazyagent-signature: sha256=6f000636956a1f6e9f91410b3b081e18706db94ffd2319fddd606ab833d086aa".to_owned(),
            "x-ringback-attempt: 3".to_owned(),
        ]
    );
}

#[test]
fn the_event_header_is_the_word_of_the_body() {
    for kind in [EventKind::StateTransition, EventKind::Ping] {
        let word = serde_json::to_value(kind).unwrap();
        let line = format!("x-lazyagent-event: {}", word.as_str().unwrap());
        assert!(headers(&[], kind, b"{}").contains(&line), "{line}");
    }
}
