//! What we prove ourselves is believed, and not with any one byte of it changed.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use ringback_model::Timestamp;
use ringback_webhook::samples::{self, Sample};
use ringback_webhook::senders::{
    Algorithm, Encoding, HmacSpec, Incoming, PRESETS, Proven, Refused, Scheme, TimestampSpec, Unit,
    Unprovable, Verified,
};

use super::samples::{DISCORD_KEY, PUBLIC_URL, SVIX_SECRET, headers, keys, scheme};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A scheme that signs everything that can be signed.
fn described() -> Scheme {
    let spec = HmacSpec {
        header: "X-Signature".into(),
        prefix: "v1=".into(),
        algorithm: Algorithm::Sha512,
        encoding: Encoding::Base64Url,
        signed: "{id}.{timestamp}.{body}".into(),
        timestamp: Some(TimestampSpec {
            header: "X-Timestamp".into(),
            unit: Unit::Milliseconds,
            tolerance: Duration::from_secs(300),
        }),
        id_header: Some("X-Gitea-Delivery".into()),
        event_header: Some("X-Gitea-Event".into()),
    };
    Scheme::hmac(&spec, &keys(&["secret"])).unwrap()
}

/// The scheme of a sample with a secret of its own; `None`: only its sender can sign.
fn scheme_of(sample: &Sample) -> Option<Scheme> {
    Some(match sample.sender {
        "discord" => return None,
        "hmac" => described(),
        "header" => Scheme::header("X-Token", &keys(&["secret"])).unwrap(),
        "standard-webhooks" | "svix" => scheme("svix", &[SVIX_SECRET]),
        other => scheme(other, &["user:secret"]),
    })
}

fn incoming<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Incoming<'a> {
    Incoming { headers, body, query: None, public_url: Some(PUBLIC_URL) }
}

fn proven(scheme: &Scheme, sample: &Sample) -> Proven {
    let headers = headers(sample.headers);
    scheme.prove(&incoming(&headers, sample.body.as_bytes()), NOW).unwrap()
}

#[test]
fn every_sender_has_a_sample_that_names_its_source() {
    for sender in PRESETS.iter().copied().chain(["header", "hmac"]) {
        assert!(samples::of(sender).next().is_some(), "{sender}");
    }
    for sample in samples::ALL {
        assert!(sample.source.contains('.') || sample.source.contains('/'), "{}", sample.event);
        let twins = samples::of(sample.sender).filter(|other| other.event == sample.event);
        assert_eq!(twins.count(), 1, "{} {}", sample.sender, sample.event);
        let found = samples::with_body(sample.sender, sample.body.trim_end().as_bytes()).unwrap();
        assert_eq!((found.sender, found.event), (sample.sender, sample.event));
    }
    assert!(samples::with_body("github", b"{}").is_none());
}

#[test]
fn what_is_proven_is_believed() {
    for sample in samples::ALL {
        let Some(scheme) = scheme_of(sample) else { continue };
        let Proven { headers, body } = proven(&scheme, sample);
        match scheme.verify(&incoming(&headers, &body), NOW) {
            Ok(Verified::Call(call)) => {
                let names_it = ["github", "hmac", "linear", "pagerduty", "sentry", "slack", "stripe", "svix"];
                if names_it.contains(&sample.sender) {
                    assert_eq!(call.event.as_deref(), Some(sample.event));
                    assert!(call.delivery_id.is_some(), "{}", sample.sender);
                }
            }
            Ok(Verified::Challenge(_)) => assert_eq!(sample.event, "url_verification"),
            Err(why) => panic!("{} {}: {why}", sample.sender, sample.event),
        }
    }
    // GitLab's signing token and Alertmanager's bearer token.
    for (sender, secret, header) in
        [("gitlab", SVIX_SECRET, "webhook-signature"), ("alertmanager", "token", "authorization")]
    {
        let scheme = scheme(sender, &[secret]);
        let proven = proven(&scheme, samples::of(sender).next().unwrap());
        assert!(proven.headers.contains_key(header));
        assert!(scheme.verify(&incoming(&proven.headers, &proven.body), NOW).is_ok(), "{sender}");
    }
}

#[test]
fn of_every_sample_every_byte_of_body_signature_and_timestamp_counts() {
    let mut flips = 0;
    for sample in samples::ALL {
        let Some(scheme) = scheme_of(sample) else { continue };
        let Proven { headers: all, body } = proven(&scheme, sample);
        let is_token =
            ["alertmanager", "basic", "bearer", "gitlab", "header", "telegram"].contains(&sample.sender);
        // The same bytes in hex or base64 have one spelling here: a digit that changes is another signature.
        let of_proof = |name: &HeaderName| {
            scheme.hides(name) || name.as_str().contains("timestamp") || name.as_str() == "x-gitea-delivery"
        };
        let covered = |name: &&HeaderName| {
            of_proof(name) && (*name != "x-gitea-delivery" || sample.sender == "hmac")
                || (*name == "webhook-id" && !is_token)
        };
        for name in all.keys().filter(covered) {
            let value = all[name].as_bytes();
            for place in 0..value.len() {
                let mut changed = value.to_vec();
                changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
                let mut headers = all.clone();
                headers.insert(name.clone(), HeaderValue::from_bytes(&changed).unwrap());
                flips += 1;
                let verdict = scheme.verify(&incoming(&headers, &body), NOW);
                assert!(verdict.is_err(), "{} {name} at {place}", sample.sender);
            }
        }
        for place in (0..body.len()).filter(|_| !is_token) {
            let mut changed = body.clone();
            changed[place] ^= 1;
            // Twilio signs what the fields say: an empty pair says nothing.
            if sample.sender == "twilio" && form_urlencoded::parse(&changed).eq(form_urlencoded::parse(&body))
            {
                continue;
            }
            flips += 1;
            let verdict = scheme.verify(&incoming(&all, &changed), NOW);
            assert!(verdict.is_err(), "{} body at {place}", sample.sender);
        }
    }
    assert!(flips > 8_000, "{flips}");
}

#[test]
fn a_proof_holds_for_five_minutes_where_the_sender_signs_a_time() {
    for sample in samples::ALL {
        let Some(scheme) = scheme_of(sample) else { continue };
        let Proven { headers, body } = proven(&scheme, sample);
        let has_time =
            ["hmac", "linear", "slack", "standard-webhooks", "stripe", "svix"].contains(&sample.sender);
        for off in [Duration::from_secs(299), Duration::from_secs(302)] {
            let at = |now| scheme.verify(&incoming(&headers, &body), now).map(|_| ());
            let want = if has_time && off.as_secs() > 300 { Err(Refused::OutsideTolerance) } else { Ok(()) };
            assert_eq!((at(NOW.plus(off)), at(NOW.minus(off))), (want.clone(), want), "{}", sample.sender);
        }
    }
}

#[test]
fn without_a_secret_and_with_a_public_key_nothing_is_proven() {
    let headers = HeaderMap::new();
    let prove = |scheme: &Scheme| scheme.prove(&incoming(&headers, b"{}"), NOW).map(|_| ());
    assert_eq!(prove(&scheme("github", &[])), Err(Unprovable::NoSecret));
    assert_eq!(prove(&scheme("discord", &[DISCORD_KEY])), Err(Unprovable::OnlyTheSender));
    let public = scheme("svix", &["whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]);
    assert_eq!(prove(&public), Err(Unprovable::OnlyTheSender));
    assert_eq!(scheme("github", &[]).event_header().map(HeaderName::as_str), Some("x-github-event"));
    assert_eq!(scheme("stripe", &[]).event_header(), None);
}
