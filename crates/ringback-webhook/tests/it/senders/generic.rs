//! A header of any name, and a signature by description.

use std::time::Duration;

use http::HeaderMap;
use ringback_model::Timestamp;
use ringback_webhook::senders::{
    Algorithm, Call, Encoding, HmacSpec, Incoming, Refused, Scheme, TimestampSpec, Unit, Unusable, Verified,
};

use super::samples::{ALL, headers, keys};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn spec() -> HmacSpec {
    HmacSpec {
        header: "X-Signature".into(),
        prefix: String::new(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        signed: "{timestamp}.{id}.{body}".into(),
        timestamp: Some(TimestampSpec {
            header: "X-Sent".into(),
            unit: Unit::Milliseconds,
            tolerance: Duration::from_secs(10),
        }),
        id_header: Some("X-Delivery".into()),
        event_header: Some("X-Event".into()),
    }
}

fn request(signature: &str) -> HeaderMap {
    headers(&[
        ("x-signature", signature),
        ("x-sent", "1700000000000"),
        ("x-delivery", "d-1"),
        ("x-event", "done"),
    ])
}

fn check(spec: &HmacSpec, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Refused> {
    let incoming = Incoming { headers, body, query: None, public_url: None };
    Scheme::hmac(spec, &keys(&["k"])).unwrap().verify(&incoming, now)
}

#[test]
fn every_algorithm_and_encoding_verifies_what_node_signed() {
    use Algorithm::{Sha1, Sha256, Sha512};
    use Encoding::{Base64, Base64Url, Hex};
    for (algorithm, encoding, signature) in [
        (Sha1, Hex, "2ad28573818fa4d19ba95a450939f0f906301971"),
        (Sha1, Base64, "KtKFc4GPpNGbqVpFCTnw+QYwGXE="),
        (Sha256, Base64, "G6j6nbMS58ztp/FnAA/qZyFYBnC7yrRGLp7t7jCaSsM="),
        (Sha256, Base64Url, "G6j6nbMS58ztp_FnAA_qZyFYBnC7yrRGLp7t7jCaSsM"),
        (Sha256, Base64Url, "G6j6nbMS58ztp_FnAA_qZyFYBnC7yrRGLp7t7jCaSsM="),
        (
            Sha512,
            Hex,
            "616abe121b2f6f6d885740a139e8188195acee099de4b858c08c20621ebde11b\
             a27c20cabf410b39b2b545dbc29b8f1639e036cd1b32d796e7ce797ef8a1ba1c",
        ),
        (
            Sha512,
            Base64Url,
            "YWq-Ehsvb22IV0ChOegYgZWs7gmd5LhYwIwgYh694RuifCDKv0ELObK1RdvCm48WOeA2zRsy15bnznl--KG6HA",
        ),
    ] {
        let spec = HmacSpec { algorithm, encoding, ..spec() };
        let call = Call { event: Some("done".into()), delivery_id: Some("d-1".into()), accepted: None };
        let verdict = check(&spec, &request(signature), br#"{"a":1}"#, NOW);
        assert_eq!(verdict, Ok(Verified::Call(call)), "{algorithm:?} {encoding:?}");
        assert_eq!(check(&spec, &request(signature), br#"{"a":2}"#, NOW), Err(Refused::NoMatch));
        for (name, value) in [("x-delivery", "d-2"), ("x-sent", "1700000000001")] {
            let mut headers = request(signature);
            headers.insert(name, value.parse().unwrap());
            assert_eq!(check(&spec, &headers, br#"{"a":1}"#, NOW), Err(Refused::NoMatch), "{name}");
        }
    }
}

#[test]
fn the_tolerance_is_the_configured_one_both_ways() {
    let spec = HmacSpec { algorithm: Algorithm::Sha1, encoding: Encoding::Base64, ..spec() };
    let headers = request("KtKFc4GPpNGbqVpFCTnw+QYwGXE=");
    let at = |now| check(&spec, &headers, br#"{"a":1}"#, now).map(|_| ());
    let tolerance = Duration::from_secs(10);
    assert_eq!(at(NOW.plus(tolerance)), Ok(()));
    assert_eq!(at(NOW.minus(tolerance)), Ok(()));
    let over = tolerance + Duration::from_millis(1);
    assert_eq!(at(NOW.plus(over)), Err(Refused::OutsideTolerance));
    assert_eq!(at(NOW.minus(over)), Err(Refused::OutsideTolerance));
    assert_eq!(at(Timestamp::MIN), Err(Refused::OutsideTolerance));
}

#[test]
fn github_and_slack_can_be_described_and_are_what_their_presets_are() {
    let body_only =
        HmacSpec { signed: "{body}".into(), timestamp: None, id_header: None, event_header: None, ..spec() };
    let github = HmacSpec {
        header: "X-Hub-Signature-256".into(),
        prefix: "sha256=".into(),
        id_header: Some("X-GitHub-Delivery".into()),
        event_header: Some("X-GitHub-Event".into()),
        ..body_only.clone()
    };
    let slack = HmacSpec {
        header: "X-Slack-Signature".into(),
        prefix: "v0=".into(),
        signed: "v0:{timestamp}:{body}".into(),
        timestamp: Some(TimestampSpec {
            header: "X-Slack-Request-Timestamp".into(),
            unit: Unit::Seconds,
            tolerance: Duration::from_secs(300),
        }),
        ..body_only
    };
    for (preset, spec) in [("github", github), ("slack", slack)] {
        let sample = ALL.iter().find(|sample| sample.preset == preset).unwrap();
        let described = Scheme::hmac(&spec, &keys(&["other", sample.secret])).unwrap();
        let headers = sample.header_map();
        let verdict = described.verify(&sample.incoming(&headers, sample.body), sample.now());
        let Ok(Verified::Call(call)) = verdict else { panic!("{preset}: {verdict:?}") };
        assert_eq!(call.event.as_deref(), sample.event);
        assert_eq!(call.delivery_id.as_deref(), sample.delivery_id);
    }
}

#[test]
fn a_described_scheme_without_a_secret_or_a_header_refuses() {
    let incoming = |headers| Incoming { headers, body: br#"{"a":1}"#, query: None, public_url: None };
    let headers = request("2ad28573818fa4d19ba95a450939f0f906301971");
    let scheme = Scheme::hmac(&spec(), &[]).unwrap();
    assert!(!scheme.has_secret());
    assert_eq!(scheme.verify(&incoming(&headers), NOW), Err(Refused::NoSecret));
    for name in ["x-signature", "x-sent", "x-delivery"] {
        let mut headers = headers.clone();
        let value = headers.remove(name).unwrap();
        let named = name.parse().unwrap();
        assert_eq!(check(&spec(), &headers, br#"{"a":1}"#, NOW), Err(Refused::Missing(named)));
        headers.append(name, value.clone());
        headers.append(name, value);
        let named = name.parse().unwrap();
        assert_eq!(check(&spec(), &headers, br#"{"a":1}"#, NOW), Err(Refused::Doubled(named)));
    }
}

#[test]
fn a_description_that_proves_too_little_is_refused() {
    let refusal = |spec: HmacSpec| Scheme::hmac(&spec, &keys(&["k"])).unwrap_err();
    let signed = |signed: &str| refusal(HmacSpec { signed: signed.into(), ..spec() });
    assert_eq!(signed("{timestamp}.{id}"), Unusable::BodyNotSigned);
    assert_eq!(signed("{timestamp}.{id}.{body}{body}"), Unusable::BodyNotSigned);
    assert_eq!(signed("{id}.{body}"), Unusable::TimestampNotSigned);
    assert_eq!(signed("{timestamp}.{url}.{body}"), Unusable::UnknownPlaceholder("url".into()));
    assert_eq!(signed("{timestamp}.{body"), Unusable::UnknownPlaceholder("body".into()));
    assert_eq!(refusal(HmacSpec { timestamp: None, ..spec() }), Unusable::TimestampNotSigned);
    assert_eq!(refusal(HmacSpec { id_header: None, ..spec() }), Unusable::NoIdHeader);
    let nameless = Unusable::NotAHeader("X Signature".into());
    assert_eq!(refusal(HmacSpec { header: "X Signature".into(), ..spec() }), nameless);
    assert_eq!(Scheme::header("X Signature", &[]).unwrap_err(), nameless);
}

#[test]
fn algorithms_encodings_and_units_have_names_in_a_configuration() {
    use serde_json::{from_str, json};
    assert_eq!(
        from_str::<Vec<Algorithm>>(&json!(["sha1", "sha256", "sha512"]).to_string()).unwrap(),
        [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
    );
    assert_eq!(
        from_str::<Vec<Encoding>>(&json!(["hex", "base64", "base64url"]).to_string()).unwrap(),
        [Encoding::Hex, Encoding::Base64, Encoding::Base64Url]
    );
    assert_eq!(from_str::<Vec<Unit>>(r#"["s","ms"]"#).unwrap(), [Unit::Seconds, Unit::Milliseconds]);
}

#[test]
fn a_token_in_any_header_is_compared_as_it_is() {
    let scheme = Scheme::header("X-Api-Key", &keys(&["other", "s3cret"])).unwrap();
    let verdict = |pairs: &[(&str, &str)]| {
        let headers = headers(pairs);
        let incoming = Incoming { headers: &headers, body: b"", query: None, public_url: None };
        scheme.verify(&incoming, NOW).map(|_| ())
    };
    assert_eq!(verdict(&[("x-api-key", "s3cret")]), Ok(()));
    for wrong in ["", "s3cre", "s3crets", "S3cret", "Bearer s3cret"] {
        assert_eq!(verdict(&[("x-api-key", wrong)]), Err(Refused::NoMatch), "{wrong:?}");
    }
    assert_eq!(verdict(&[]), Err(Refused::Missing("x-api-key".parse().unwrap())));
    assert!(scheme.hides(&"x-api-key".parse().unwrap()));
    assert!(!scheme.hides(&"x-api-version".parse().unwrap()));
}

#[test]
fn auth_none_believes_everybody() {
    let scheme = Scheme::unsigned();
    assert!(scheme.has_secret());
    let incoming = Incoming { headers: &HeaderMap::new(), body: b"x", query: None, public_url: None };
    assert_eq!(scheme.verify(&incoming, NOW), Ok(Verified::Call(Call::default())));
}
