use ringback_model::Outcome;
use ringback_model::delivery::{self, Failure};
use ringback_testkit::{
    Answer as Said, DEADLINE, DiscordFault, FakeDiscord, FakeDiscordConfig, FakeProvider, Service,
};

use super::*;

fn hook(format: Format, url: &str, token: Option<&str>) -> Hook {
    let token = token.map(Secret::new);
    Hook::new(Client::new().unwrap(), format, &Secret::new(url), token.as_ref()).unwrap()
}

async fn say(hook: &Hook, text: &str) -> Reply {
    hook.send(&Card::of_text(text), Uuid::from_u128(1), DEADLINE, Timestamp::from_millis(0)).await
}

async fn discord() -> (FakeDiscord, Hook) {
    let fake = FakeDiscord::start(FakeDiscordConfig::default()).await;
    let FakeDiscordConfig { webhook_id, webhook_token, .. } = fake.config();
    let url = format!("{}/api/v10/webhooks/{webhook_id}/{webhook_token}", fake.base_url());
    let hook = hook(Format::Discord, &url, None);
    (fake, hook)
}

#[tokio::test]
async fn a_text_arrives_at_each_service() {
    for (service, format, key) in [
        (Service::Slack, Format::Slack, "text"),
        (Service::Ntfy, Format::Ntfy, "message"),
        (Service::Telegram, Format::Telegram, "text"),
    ] {
        let fake = FakeProvider::start(service).await;
        let reply = say(&hook(format, &fake.url(), None), "[bg] @everyone & co").await;
        assert_eq!(delivery::outcome(&reply), Outcome::Delivered, "{:?}", fake.refusals());
        let want = if service == Service::Slack { "[bg] @everyone &amp; co" } else { "[bg] @everyone & co" };
        assert_eq!(fake.messages()[0][key], want, "{service:?}");
        assert_eq!(fake.requests()[0].header("user-agent"), Some(request::AGENT));
    }
    let (fake, hook) = discord().await;
    assert_eq!(say(&hook, "[bg] hook").await.unwrap().status, 200);
    assert_eq!(fake.messages()[0].content(), "[bg] hook");
    assert!(fake.requests()[0].header("authorization").is_none());
}

#[tokio::test]
async fn a_token_is_the_authorization_and_in_no_debug_text() {
    let fake = FakeProvider::start(Service::Ntfy).await;
    let hook = hook(Format::Ntfy, &fake.url(), Some("tk_0123456789"));
    assert_eq!(say(&hook, "x").await.unwrap().status, 200);
    assert_eq!(fake.requests()[0].header("authorization"), Some("Bearer tk_0123456789"));
    let shown = format!("{hook:?}");
    assert!(!shown.contains("0123456789") && !shown.contains("topic"), "{shown}");
}

#[tokio::test]
async fn a_retry_goes_on_with_the_part_that_failed() {
    let (fake, hook) = discord().await;
    let text = ["a", "b", "c"].map(|letter| letter.repeat(2_000)).concat();
    let posted = |fake: &FakeDiscord| {
        fake.messages().iter().filter_map(|m| m.content().chars().next()).collect::<String>()
    };
    fake.script([None, Some(DiscordFault::RateLimited(1.25))]);
    let wait = Some(Duration::from_millis(1_250));
    assert_eq!(delivery::outcome(&say(&hook, &text).await), Outcome::Retry { wait, pause: true });
    assert_eq!(posted(&fake), "a");
    assert_eq!(say(&hook, &text).await.unwrap().status, 200);
    assert_eq!(posted(&fake), "abc");
}

#[tokio::test]
async fn a_refusal_ends_the_message_in_the_services_words_and_leaves_the_notifier() {
    let fake = FakeProvider::start(Service::Slack).await;
    let body = b"no_service".to_vec();
    fake.script([Some(Said::Full { status: 404, headers: Vec::new(), body })]);
    let hook = hook(Format::Slack, &fake.url(), None);
    let reply = say(&hook, "x").await;
    assert_eq!(delivery::outcome(&reply), Outcome::Rejected);
    assert_eq!(reply.unwrap().excerpt, "no_service");
    assert_eq!(say(&hook, "x").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_secret_is_in_no_failure() {
    let hook = hook(Format::Slack, "http://127.0.0.1:1/services/T0/B0/0123456789abcdef", None);
    let failure: Failure = say(&hook, "x").await.unwrap_err();
    assert!(!format!("{failure:?}").contains("0123456789"), "{failure:?}");
}
