//! Requests as their senders document them, to try a hook with.
//!
//! Owns: the bodies below `samples/` and the headers that go with them, without any proof: that needs a secret (see
//! [`Scheme::prove`](crate::senders::Scheme::prove)). Bodies have the documented shape, cut to what a hook could want;
//! ids of people are those of the starting files in `docs/hooks.md`.

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Who sends it: a name that `auth` of a hook file knows.
    pub sender: &'static str,
    /// What happened, in the sender's word where it has one. With `sender` it is the sample's name.
    pub event: &'static str,
    /// The documentation that shows it.
    pub source: &'static str,
    /// Its headers, in lower case, without proof.
    pub headers: &'static [(&'static str, &'static str)],
    /// Its body.
    pub body: &'static str,
}

/// The samples of one sender.
pub fn of(sender: &str) -> impl Iterator<Item = &'static Sample> {
    ALL.iter().filter(move |sample| sample.sender == sender)
}

/// The sample that has this body; a newline at the end does not count. Senders may share one: theirs comes first.
pub fn with_body(sender: &str, body: &[u8]) -> Option<&'static Sample> {
    let body = body.trim_ascii_end();
    let is_it = |sample: &&Sample| sample.body.trim_ascii_end().as_bytes() == body;
    of(sender).find(is_it).or_else(|| ALL.iter().find(is_it))
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Every sample, by sender.
pub const ALL: &[Sample] = &[
    Sample {
        sender: "alertmanager",
        event: "firing",
        source: "prometheus.io, Alerting > Configuration, webhook_config",
        headers: &[JSON],
        body: include_str!("../samples/alertmanager-firing.json"),
    },
    Sample {
        sender: "alertmanager",
        event: "grafana",
        source: "grafana.com/docs, Alerting > Configure the webhook notifier, JSON payload",
        headers: &[JSON],
        body: include_str!("../samples/grafana-firing.json"),
    },
    Sample { sender: "basic", ..UPTIME_KUMA },
    Sample { sender: "bearer", ..UPTIME_KUMA },
    Sample {
        sender: "discord",
        event: "command",
        source: "docs.discord.com, Interactions > Receiving and Responding, Interaction Object",
        headers: &[JSON],
        body: include_str!("../samples/discord-command.json"),
    },
    Sample {
        sender: "discord",
        event: "ping",
        source: "docs.discord.com, Interactions > Overview, Acknowledging PING requests",
        headers: &[JSON],
        body: include_str!("../samples/discord-ping.json"),
    },
    Sample {
        sender: "github",
        event: "workflow_run",
        source: "docs.github.com, Webhook events and payloads, workflow_run; octokit/webhooks, payload-examples",
        headers: &[
            JSON,
            ("x-github-event", "workflow_run"),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ],
        body: include_str!("../samples/github-workflow_run.json"),
    },
    Sample {
        sender: "github",
        event: "ping",
        source: "docs.github.com, Webhook events and payloads, ping; octokit/webhooks, payload-examples",
        headers: &[
            JSON,
            ("x-github-event", "ping"),
            ("x-github-delivery", "8c1b63a0-cc78-11e3-9ae2-0b5d6bd16f5f"),
        ],
        body: include_str!("../samples/github-ping.json"),
    },
    Sample {
        sender: "gitlab",
        event: "pipeline",
        source: "docs.gitlab.com, Webhook events, Pipeline events",
        headers: &[
            JSON,
            ("x-gitlab-event", "Pipeline Hook"),
            ("x-gitlab-event-uuid", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
            ("idempotency-key", "f5e57d8a-0c1e-4f3f-9a3e-5e0a8a5f3f6e"),
        ],
        body: include_str!("../samples/gitlab-pipeline.json"),
    },
    UPTIME_KUMA,
    Sample {
        sender: "hmac",
        event: "issues",
        source: "docs.gitea.com, Webhooks, Event information",
        headers: &[
            JSON,
            ("x-gitea-event", "issues"),
            ("x-gitea-delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        ],
        body: include_str!("../samples/gitea-issues.json"),
    },
    Sample {
        sender: "linear",
        event: "Issue",
        source: "linear.app/developers, Webhooks, The webhook payload",
        headers: &[
            JSON,
            ("linear-event", "Issue"),
            ("linear-delivery", "234d1a4e-b617-4388-90fe-adc3633d6b72"),
        ],
        body: include_str!("../samples/linear-Issue.json"),
    },
    Sample {
        sender: "pagerduty",
        event: "incident.triggered",
        source: "developer.pagerduty.com, Webhooks > Overview, Webhook payload",
        headers: &[JSON, ("x-webhook-id", "e7a3f0e1-9d61-4d3c-8d9d-1f6b8d7a5b10")],
        body: include_str!("../samples/pagerduty-incident.triggered.json"),
    },
    Sample {
        sender: "sentry",
        event: "event_alert",
        source: "docs.sentry.io, Integration Platform > Webhooks > Issue Alerts",
        headers: &[
            JSON,
            ("sentry-hook-resource", "event_alert"),
            ("request-id", "2b1a0c3e-1f65-4f6b-8d53-6f2a1f9c0e11"),
        ],
        body: include_str!("../samples/sentry-event_alert.json"),
    },
    Sample {
        sender: "slack",
        event: "app_mention",
        source: "docs.slack.dev, Events > app_mention",
        headers: &[JSON],
        body: include_str!("../samples/slack-app_mention.json"),
    },
    Sample {
        sender: "slack",
        event: "url_verification",
        source: "docs.slack.dev, Events > url_verification",
        headers: &[JSON],
        body: include_str!("../samples/slack-url_verification.json"),
    },
    Sample { sender: "standard-webhooks", ..USER_CREATED },
    Sample {
        sender: "stripe",
        event: "invoice.payment_failed",
        source: "docs.stripe.com/api, The Event object and The Invoice object",
        headers: &[JSON],
        body: include_str!("../samples/stripe-invoice.payment_failed.json"),
    },
    USER_CREATED,
    Sample {
        sender: "telegram",
        event: "message",
        source: "core.telegram.org/bots/api, Update; core.telegram.org/bots/webhooks, Testing your bot with updates",
        headers: &[JSON],
        body: include_str!("../samples/telegram-message.json"),
    },
    Sample {
        sender: "twilio",
        event: "message",
        source: "twilio.com/docs/messaging, Twilio's request to your incoming message webhook URL",
        headers: &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("i-twilio-idempotency-token", "d0b6c2a5-3a1e-4d2b-8a39-2f5f0b7c6d11"),
        ],
        body: include_str!("../samples/twilio-message.form"),
    },
];

const UPTIME_KUMA: Sample = Sample {
    sender: "header",
    event: "down",
    source: "louislam/uptime-kuma, server/notification-providers/webhook.js",
    headers: &[JSON],
    body: include_str!("../samples/uptime-kuma-down.json"),
};

const USER_CREATED: Sample = Sample {
    sender: "svix",
    event: "user.created",
    source: "standard-webhooks/standard-webhooks, spec, Payload structure",
    headers: &[JSON, ("webhook-id", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W")],
    body: include_str!("../samples/standard-user.created.json"),
};
