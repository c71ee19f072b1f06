//! One request of every sender. Where its documentation or its own library has a whole one (secret, body and
//! signature), it is that; else the body is theirs and the signature was made with Node's `crypto`.

use http::{HeaderMap, HeaderName, HeaderValue};
use ringback_model::{Secret, Timestamp};
use ringback_webhook::senders::{Incoming, Scheme};

/// A request and what is known of it.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) preset: &'static str,
    pub(super) secret: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) body: &'static [u8],
    pub(super) query: Option<&'static str>,
    /// When it was sent, in milliseconds.
    pub(super) sent_at: i64,
    /// The smallest step of its timestamp, in milliseconds; `None`: it has none that is signed.
    pub(super) step: Option<i64>,
    /// The headers that are the proof, or that it covers. All have to be there.
    pub(super) proof: &'static [&'static str],
    pub(super) covers_body: bool,
    pub(super) event: Option<&'static str>,
    pub(super) delivery_id: Option<&'static str>,
    /// Status, type and body of the answer to an accepted call, where it is not ours to choose.
    pub(super) accepted: Option<(u16, Option<&'static str>, &'static str)>,
}

const PLAIN: Sample = Sample {
    preset: "",
    secret: "",
    headers: &[],
    body: b"{}",
    query: None,
    sent_at: 1_700_000_000_000,
    step: None,
    proof: &["authorization"],
    covers_body: false,
    event: None,
    delivery_id: None,
    accepted: None,
};

impl Sample {
    pub(super) fn scheme(&self, secrets: &[&str]) -> Scheme {
        scheme(self.preset, secrets)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.sent_at)
    }

    pub(super) fn header_map(&self) -> HeaderMap {
        headers(self.headers)
    }

    pub(super) fn incoming<'a>(&self, headers: &'a HeaderMap, body: &'a [u8]) -> Incoming<'a> {
        Incoming { headers, body, query: self.query, public_url: Some(PUBLIC_URL) }
    }
}

pub(super) const PUBLIC_URL: &str = "https://mycompany.com/myapp.php";

pub(super) fn scheme(preset: &str, secrets: &[&str]) -> Scheme {
    Scheme::preset(preset, &keys(secrets)).unwrap()
}

pub(super) fn keys(secrets: &[&str]) -> Vec<Secret> {
    secrets.iter().map(|secret| Secret::new(*secret)).collect()
}

pub(super) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

pub(super) const ALL: [Sample; 21] = [
    // RFC 6750, section 2.1.
    Sample { preset: "bearer", secret: "mF_9.B5f-4.1JqM", headers: &[("authorization", "Bearer mF_9.B5f-4.1JqM")], ..PLAIN },
    // RFC 7617, section 2.
    Sample {
        preset: "basic",
        secret: "Aladdin:open sesame",
        headers: &[("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")],
        ..PLAIN
    },
    // Alertmanager's `http_config`: `authorization` (here) or `basic_auth` (next).
    Sample {
        preset: "alertmanager",
        secret: "mF_9.B5f-4.1JqM",
        headers: &[("authorization", "Bearer mF_9.B5f-4.1JqM")],
        delivery_id: Some(HASH_OF_BRACES),
        ..PLAIN
    },
    Sample {
        preset: "alertmanager",
        secret: "Aladdin:open sesame",
        headers: &[("authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")],
        delivery_id: Some(HASH_OF_BRACES),
        ..PLAIN
    },
    // docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation".
    Sample {
        preset: "github",
        secret: "It's a Secret to Everybody",
        headers: &[
            ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
            ("x-github-event", "push"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ],
        body: b"Hello, World!",
        proof: &["x-hub-signature-256"],
        covers_body: true,
        event: Some("push"),
        delivery_id: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ..PLAIN
    },
    // docs.gitlab.com, "Webhooks": the secret token, sent as it is.
    Sample {
        preset: "gitlab",
        secret: "my-token",
        headers: &[
            ("x-gitlab-token", "my-token"),
            ("x-gitlab-event", "Push Hook"),
            ("x-gitlab-event-uuid", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
            ("idempotency-key", "f5e57d8a-0c1e-4f3f-9a3e-5e0a8a5f3f6e"),
        ],
        proof: &["x-gitlab-token"],
        event: Some("Push Hook"),
        delivery_id: Some("f5e57d8a-0c1e-4f3f-9a3e-5e0a8a5f3f6e"),
        ..PLAIN
    },
    // GitLab's signing token is Standard Webhooks (gitlab-org/gitlab, merge request 230944), so the request is its.
    Sample {
        preset: "gitlab",
        secret: SVIX_SECRET,
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", SVIX_SIGNATURE),
            ("idempotency-key", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("x-gitlab-event", "Issue Hook"),
        ],
        proof: &["webhook-id", "webhook-timestamp", "webhook-signature"],
        event: Some("Issue Hook"),
        ..STANDARD
    },
    // docs.slack.dev, "Verifying requests from Slack".
    Sample {
        preset: "slack",
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        headers: &[
            ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
            ("x-slack-request-timestamp", "1531420618"),
        ],
        body: b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
            &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
            &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
            &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        sent_at: 1_531_420_618_000,
        step: Some(1000),
        proof: &["x-slack-signature", "x-slack-request-timestamp"],
        covers_body: true,
        accepted: Some((200, None, "")),
        ..PLAIN
    },
    // docs.stripe.com, "Verify webhook signatures manually": the header with two signatures while a secret is rolled.
    // The body is that of stripe-node's tests, the second signature Node's.
    Sample {
        preset: "stripe",
        secret: "whsec_test_secret",
        headers: &[(
            "stripe-signature",
            "t=1492774577,v1=989b12d57b4d342eed76c2c99ddc99d3d4c9fd342bcb52614efd765faa693cb0,\
             v1=c2f890decbc5ede7c5060bb9a6d31e0626a4342bacb9aeae2adb1bcea72f9812,\
             v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
        )],
        body: b"{\n  \"id\": \"evt_test_webhook\",\n  \"object\": \"event\"\n}",
        sent_at: 1_492_774_577_000,
        step: Some(1000),
        proof: &[],
        covers_body: true,
        delivery_id: Some("evt_test_webhook"),
        ..PLAIN
    },
    // The same with one signature, so that every byte of the header counts.
    Sample {
        preset: "stripe",
        secret: "whsec_test_secret",
        headers: &[(
            "stripe-signature",
            "t=1492774577,v1=c2f890decbc5ede7c5060bb9a6d31e0626a4342bacb9aeae2adb1bcea72f9812",
        )],
        body: b"{\n  \"id\": \"evt_test_webhook\",\n  \"object\": \"event\"\n}",
        sent_at: 1_492_774_577_000,
        step: Some(1000),
        proof: &["stripe-signature"],
        covers_body: true,
        delivery_id: Some("evt_test_webhook"),
        ..PLAIN
    },
    // linear/linear, LinearWebhooks.test.ts: secret and body; the signature is Node's, as in that test.
    Sample {
        preset: "linear",
        secret: "SECRET",
        headers: &[
            ("linear-signature", "8790fcbbea809950be9198408593c2a13f7591bba6c61adb589f709b5e1b186a"),
            ("linear-delivery", "234d1a4e-b617-4388-90fe-adc3633d6b72"),
            ("linear-event", "Comment"),
        ],
        body: br#"{"action":"create","data":{"id":"2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9","createdAt":"2020-01-23T12:53:18.084Z","updatedAt":"2020-01-23T12:53:18.084Z","archivedAt":null,"body":"Indeed, I think this is definitely an improvement over the previous version.","edited":false,"issueId":"539068e2-ae88-4d09-bd75-22eb4a59612f","userId":"aacdca22-6266-4c0a-ab3c-8fa70a26765c"},"type":"Comment","url":"https://linear.app/issue/LIN-1778/foo-bar#comment-77217de3-fb52-4dad-bb9a-b356beb93de8","createdAt":"2020-01-23T12:53:18.084Z","webhookTimestamp":1677611643000}"#,
        sent_at: 1_677_611_643_000,
        step: Some(1),
        proof: &["linear-signature"],
        covers_body: true,
        event: Some("Comment"),
        delivery_id: Some("234d1a4e-b617-4388-90fe-adc3633d6b72"),
        ..PLAIN
    },
    // docs.sentry.io, "Webhooks": headers and shape of the body; the signature is Node's.
    SENTRY,
    // The same under the other name of the header, and without a body.
    Sample {
        headers: &[
            ("sentry-app-signature", "03c06fe29355cf680d85917260823a5a0d0b3e7d064f7e85543ee1469f849b6d"),
            ("request-id", "2b1a0c3e-1f65-4f6b-8d53-6f2a1f9c0e11"),
        ],
        body: b"",
        proof: &["sentry-app-signature"],
        event: None,
        ..SENTRY
    },
    // PagerDuty/go-pagerduty, webhookv3_test.go.
    Sample {
        preset: "pagerduty",
        secret: "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK",
        headers: &[
            ("x-pagerduty-signature", "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd"),
            ("x-webhook-id", "e7a3f0e1-9d61-4d3c-8d9d-1f6b8d7a5b10"),
        ],
        body: include_bytes!("pagerduty.json"),
        proof: &["x-pagerduty-signature"],
        covers_body: true,
        event: Some("incident.priority_updated"),
        delivery_id: Some("e7a3f0e1-9d61-4d3c-8d9d-1f6b8d7a5b10"),
        ..PLAIN
    },
    // docs.svix.com, "Verifying webhooks manually", under both names of the headers.
    Sample { preset: "standard-webhooks", ..STANDARD },
    Sample {
        preset: "svix",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", SVIX_SIGNATURE),
        ],
        proof: &["svix-id", "svix-timestamp", "svix-signature"],
        ..STANDARD
    },
    // Standard Webhooks 1.0.0, "Signature scheme": the asymmetric one, with the key of RFC 8032, section 7.1, test 1.
    Sample {
        preset: "standard-webhooks",
        secret: "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1a,fldxM4gAKugP6nnt1hdz3sgGfZ6d99nzrMFnZOELIxbzEHoVmAb2ADpkJK7zgPePmPsle0zV9jSeGlHFG2NVAw==",
            ),
        ],
        ..STANDARD
    },
    // www.twilio.com/docs/usage/security, "Validating signatures from Twilio".
    Sample {
        preset: "twilio",
        secret: "12345",
        headers: &[
            ("x-twilio-signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="),
            ("content-type", "application/x-www-form-urlencoded"),
            ("i-twilio-idempotency-token", "d0b6c2a5-3a1e-4d2b-8a39-2f5f0b7c6d11"),
        ],
        // Out of order: it is the receiver who sorts.
        body: b"To=%2B18005551212&CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030",
        query: Some("foo=1&bar=2"),
        proof: &["x-twilio-signature"],
        covers_body: true,
        delivery_id: Some("d0b6c2a5-3a1e-4d2b-8a39-2f5f0b7c6d11"),
        accepted: Some((200, Some("text/xml"), "<Response/>")),
        ..PLAIN
    },
    // twilio/twilio-python, test_request_validator.py: a JSON body.
    Sample {
        preset: "twilio",
        secret: "12345",
        headers: &[
            ("x-twilio-signature", "a9nBmqA0ju/hNViExpshrM61xv4="),
            ("content-type", "application/json"),
        ],
        body: br#"{"property": "value", "boolean": true}"#,
        query: Some(
            "foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
        ),
        proof: &["x-twilio-signature"],
        covers_body: true,
        accepted: Some((200, Some("text/xml"), "<Response/>")),
        ..PLAIN
    },
    // docs.discord.com, "Interactions": the body, cut; signed by Node with the key of RFC 8032, section 7.1, test 1.
    Sample {
        preset: "discord",
        secret: DISCORD_KEY,
        headers: &[
            (
                "x-signature-ed25519",
                "9877a9f0a4d288d04c5830c1c4b12fa9c59027f44ba38f57d17ac1278c919d4d\
                 4c746bcc4528dfd9448157e4faa389e3882c6e6f4ab84215decff8afdd14b10e",
            ),
            ("x-signature-timestamp", "1609459200"),
        ],
        body: br#"{"type":2,"token":"A_UNIQUE_TOKEN","member":{"user":{"id":"53908232506183680","username":"Mason"}},"id":"786008729715212338","guild_id":"290926798626357999","data":{"name":"cardsearch","id":"771825006014889984"}}"#,
        sent_at: 1_609_459_200_000,
        step: Some(1000),
        proof: &["x-signature-ed25519", "x-signature-timestamp"],
        covers_body: true,
        delivery_id: Some("786008729715212338"),
        accepted: Some((200, Some("application/json"), r#"{"type":5}"#)),
        ..PLAIN
    },
    // core.telegram.org/bots/api, `setWebhook`, `secret_token`.
    Sample {
        preset: "telegram",
        secret: "A-Za-z0-9_-",
        headers: &[("x-telegram-bot-api-secret-token", "A-Za-z0-9_-")],
        body: br#"{"update_id":10000,"message":{"message_id":1365,"text":"/start"}}"#,
        proof: &["x-telegram-bot-api-secret-token"],
        delivery_id: Some("10000"),
        ..PLAIN
    },
];

/// SHA-256 of `{}`, by `sha256sum`.
const HASH_OF_BRACES: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

pub(super) const DISCORD_KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

pub(super) const SVIX_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SVIX_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

const STANDARD: Sample = Sample {
    secret: SVIX_SECRET,
    headers: &[
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", SVIX_SIGNATURE),
    ],
    body: br#"{"test": 2432232314}"#,
    sent_at: 1_614_265_330_000,
    step: Some(1000),
    proof: &["webhook-id", "webhook-timestamp", "webhook-signature"],
    covers_body: true,
    delivery_id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    ..PLAIN
};

const SENTRY: Sample = Sample {
    preset: "sentry",
    secret: "client-secret",
    headers: &[
        ("sentry-hook-signature", "735de2934a56da90769f108943945be89a3ce019c7e0fcdb1de5a96186833386"),
        ("sentry-hook-resource", "issue"),
        ("request-id", "2b1a0c3e-1f65-4f6b-8d53-6f2a1f9c0e11"),
    ],
    body: br#"{"action":"created","installation":{"uuid":"7a485448-a9e2-4c85-8a3c-4f44175783c9"},"data":{"issue":{"id":"1170820242"}},"actor":{"type":"application","id":"sentry","name":"Sentry"}}"#,
    proof: &["sentry-hook-signature"],
    covers_body: true,
    event: Some("issue"),
    delivery_id: Some("2b1a0c3e-1f65-4f6b-8d53-6f2a1f9c0e11"),
    ..PLAIN
};
