use ringback_model::Outcome;
use ringback_model::delivery;
use ringback_model::ping::embed::{Button, Field};
use ringback_model::ping::{Color, Embed};
use ringback_testkit::{DEADLINE, DiscordFault, FakeDiscord, FakeDiscordConfig};

use super::*;
use crate::notify::{Message, Notifier};

const EVENT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

fn client() -> Client {
    Client::new().unwrap()
}

async fn fake() -> FakeDiscord {
    FakeDiscord::start(FakeDiscordConfig::default()).await
}

fn to_user(fake: &FakeDiscord, remembered: Option<&str>) -> Discord {
    let token = Secret::new(fake.config().token.as_str());
    let remembered = remembered.map(str::to_owned);
    Discord::to_user(client(), &fake.base_url(), &token, &fake.config().user_id, remembered).unwrap()
}

fn to_channel(fake: &FakeDiscord) -> Discord {
    let token = Secret::new(fake.config().token.as_str());
    Discord::to_channel(client(), &fake.base_url(), &token, &fake.config().channel_id).unwrap()
}

/// An event of its own for each text.
async fn send(discord: &Discord, message: &Message) -> Reply {
    let mut event = [0; 16];
    for (at, byte) in message.text.bytes().enumerate() {
        event[at % 16] ^= byte;
    }
    discord.send(&message.card(), Uuid::from_bytes(event), DEADLINE, Timestamp::from_millis(0)).await
}

async fn say(discord: &Discord, text: &str) -> Reply {
    send(discord, &Message::of_text(text)).await
}

/// Three parts; the letter says which.
fn three_parts() -> String {
    ["a", "b", "c"].map(|letter| letter.repeat(2_000)).concat()
}

/// What was posted, each text by its first character.
fn posted(fake: &FakeDiscord) -> String {
    fake.messages().iter().filter_map(|message| message.content().chars().next()).collect()
}

fn card() -> Message {
    let field = Field { name: "n".repeat(256), value: "v".repeat(1_024), inline: true };
    let button = Button { label: "l".repeat(80), url: "https://ci.example.com/1".to_owned() };
    let embed = Embed {
        title: "t".repeat(256),
        description: "d".repeat(4_096),
        color: Color::Green,
        fields: vec![field; 25],
        buttons: vec![button; 5],
    };
    Message { embed: Some(embed), source: Some("s".repeat(64)), ..Message::of_text("[bg] card") }
}

#[tokio::test]
async fn the_direct_message_channel_is_made_once_and_kept() {
    let fake = fake().await;
    let discord = to_user(&fake, None);
    assert_eq!(discord.remembered(), None);
    assert_eq!(say(&discord, "[bg] one").await.unwrap().status, 200);
    assert_eq!(say(&discord, "[bg] two").await.unwrap().status, 200);
    let messages = fake.wait_for(2, DEADLINE).await;
    assert_eq!([messages[0].content(), messages[1].content()], ["[bg] one", "[bg] two"]);
    let channel = discord.remembered().unwrap();
    assert_eq!(messages[0].to, channel);
    assert_eq!(fake.direct_channels_made(), 1);

    let next_process = to_user(&fake, Some(&channel));
    assert_eq!(say(&next_process, "[bg] three").await.unwrap().status, 200);
    assert_eq!(fake.direct_channels_made(), 1);
    assert_eq!(fake.refusals(), Vec::<String>::new());
}

#[tokio::test]
async fn messages_at_the_same_time_make_one_direct_message_channel() {
    let fake = fake().await;
    let discord = to_user(&fake, None);
    let message = Card::of_text("[bg] x");
    let now = Timestamp::from_millis(0);
    let (one, two) = tokio::join!(
        discord.send(&message, Uuid::from_u128(1), DEADLINE, now),
        discord.send(&message, Uuid::from_u128(2), DEADLINE, now),
    );
    assert_eq!((one.unwrap().status, two.unwrap().status), (200, 200));
    assert_eq!((fake.direct_channels_made(), fake.messages().len()), (1, 2));
}

#[tokio::test]
async fn a_kept_channel_that_is_gone_is_made_anew_in_the_same_attempt() {
    let fake = fake().await;
    let discord = to_user(&fake, Some("499999999999999999"));
    assert_eq!(say(&discord, "[bg] one").await.unwrap().status, 200);
    let first = discord.remembered().unwrap();
    fake.drop_direct_channel();
    assert_eq!(say(&discord, "[bg] two").await.unwrap().status, 200);
    assert_ne!(discord.remembered().unwrap(), first);
    assert_eq!((fake.direct_channels_made(), fake.messages().len()), (2, 2));
}

#[tokio::test]
async fn a_text_reaches_channels_too_and_mentions_nobody() {
    let fake = fake().await;
    assert_eq!(say(&to_channel(&fake), "[bg] @everyone").await.unwrap().status, 200);
    let messages = fake.messages();
    assert_eq!(messages[0].to, fake.config().channel_id);
    assert_eq!(messages[0].body["allowed_mentions"], serde_json::json!({"parse": []}));
}

#[tokio::test]
async fn an_embed_with_everything_at_its_limit_is_taken_by_every_route() {
    let fake = fake().await;
    for discord in [to_user(&fake, None), to_channel(&fake)] {
        let answer = send(&discord, &card()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.excerpt);
    }
    for message in fake.messages() {
        assert_eq!(message.content(), "");
        assert_eq!(message.body["components"][0]["components"].as_array().unwrap().len(), 5);
    }
}

#[tokio::test]
async fn a_long_text_is_several_messages_in_order() {
    let fake = fake().await;
    assert_eq!(say(&to_channel(&fake), &three_parts()).await.unwrap().status, 200);
    assert_eq!(posted(&fake), "abc");
}

#[tokio::test]
async fn a_retry_goes_on_with_the_part_that_failed() {
    let fake = fake().await;
    let discord = to_channel(&fake);
    fake.script([None, Some(DiscordFault::InternalError)]);
    let reply = say(&discord, &three_parts()).await;
    assert_eq!(delivery::outcome(&reply), Outcome::Retry { wait: None, pause: false });
    assert_eq!(posted(&fake), "a");
    assert_eq!(say(&discord, &three_parts()).await.unwrap().status, 200);
    assert_eq!(posted(&fake), "abc");
}

#[tokio::test]
async fn a_bots_retry_repeats_nothing_after_a_lost_answer_or_in_a_new_process() {
    let fake = fake().await;
    let discord = to_channel(&fake);
    fake.script([None, Some(DiscordFault::LostAnswer)]);
    let reply = say(&discord, &three_parts()).await;
    assert!(matches!(reply, Err(Failure::Broken(_))), "{reply:?}");
    assert_eq!(posted(&fake), "ab");
    assert_eq!(say(&to_channel(&fake), &three_parts()).await.unwrap().status, 200);
    assert_eq!(posted(&fake), "abc");
}

#[tokio::test]
async fn the_same_text_in_another_message_is_sent() {
    let fake = fake().await;
    let discord = to_channel(&fake);
    let message = Card::of_text("[bg] again");
    for event in 1..=2 {
        let now = Timestamp::from_millis(0);
        discord.send(&message, Uuid::from_u128(event), DEADLINE, now).await.unwrap();
    }
    assert_eq!(fake.messages().len(), 2);
}

#[tokio::test]
async fn a_rate_limit_is_an_answer_with_discords_exact_wait() {
    let fake = fake().await;
    for discord in [to_user(&fake, None), to_channel(&fake)] {
        fake.script([Some(DiscordFault::RateLimited(1.25))]);
        let reply = say(&discord, "[bg] x").await;
        let wait = Some(Duration::from_millis(1_250));
        assert_eq!(delivery::outcome(&reply), Outcome::Retry { wait, pause: true });
    }
    assert_eq!(fake.messages().len(), 0);
}

#[tokio::test]
async fn a_wait_that_is_no_wait_leaves_the_headers() {
    let discord = to_channel(&fake().await);
    for body in [r#"{"retry_after":-1}"#, r#"{"retry_after":1e300}"#, "<html>", ""] {
        let header = Some(Duration::from_secs(7));
        let answer = Answer { status: 429, retry_after: header, ..Answer::default() };
        assert_eq!(discord.read(answer, body.as_bytes()).0.retry_after, header, "{body}");
    }
}

#[tokio::test]
async fn refusals_are_permanent_and_in_discords_words() {
    for (fault, status, words) in [
        (DiscordFault::Unauthorized, 401, "401: Unauthorized"),
        (DiscordFault::MissingAccess, 403, "Missing Access"),
        (DiscordFault::ClosedDms, 403, "Cannot send messages to this user"),
    ] {
        let fake = fake().await;
        // The first request makes the channel.
        fake.script([None, Some(fault)]);
        let reply = say(&to_user(&fake, None), "[bg] x").await;
        assert_eq!(delivery::outcome(&reply), Outcome::Rejected);
        let answer = reply.unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.excerpt.contains(words), "{}", answer.excerpt);
        assert_eq!(fake.messages().len(), 0);
    }
}

#[tokio::test]
async fn no_channel_for_a_user_is_discords_refusal_too() {
    let fake = fake().await;
    let token = Secret::new(fake.config().token.as_str());
    let base = fake.base_url();
    let discord = Discord::to_user(client(), &base, &token, "1", None).unwrap();
    let answer = say(&discord, "[bg] x").await.unwrap();
    assert_eq!((answer.status, discord.remembered()), (400, None));
    assert!(answer.excerpt.contains("Invalid Recipient(s)"), "{}", answer.excerpt);
}

#[tokio::test]
async fn a_discord_that_does_not_answer_is_a_failure_to_be_retried() {
    let fake = fake().await;
    let discord = to_channel(&fake);
    fake.script([Some(DiscordFault::Hang)]);
    let message = Card::of_text("[bg] x");
    let now = Timestamp::from_millis(0);
    let reply = discord.send(&message, EVENT, Duration::from_millis(50), now).await;
    assert_eq!(reply, Err(Failure::Timeout));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let token = Secret::new("t");
    let discord = Discord::to_channel(client(), &closed, &token, "1").unwrap();
    assert_eq!(say(&discord, "[bg] x").await, Err(Failure::Refused));
}

#[tokio::test]
async fn a_secret_is_in_no_debug_text_no_error_and_no_excerpt() {
    let fake = fake().await;
    let FakeDiscordConfig { token: secret, .. } = fake.config();
    for discord in [to_user(&fake, None), to_channel(&fake)] {
        let (answer, _) = discord.read(Answer::default(), format!("no {secret} here\n").as_bytes());
        assert_eq!(answer.excerpt, "no *** here\\u000a");
        let shown = format!("{:?}", Notifier::Discord(Box::new(discord)));
        assert!(!shown.contains(secret.as_str()), "{shown}");
    }
}

#[tokio::test]
async fn an_excerpt_is_at_most_a_kibibyte() {
    let discord = to_channel(&fake().await);
    let (answer, _) = discord.read(Answer::default(), "\u{20ac}".repeat(5_000).as_bytes());
    assert!((EXCERPT_LIMIT - 3..=EXCERPT_LIMIT).contains(&answer.excerpt.len()), "{}", answer.excerpt.len());
}

#[tokio::test]
async fn a_journaled_body_goes_out_as_it_was_written() {
    let fake = fake().await;
    let notifier = Notifier::Discord(Box::new(to_user(&fake, None)));
    let body = serde_json::to_vec(&Message::of_text("[bg] from the journal")).unwrap();
    let reply = notifier.send(&body, EVENT, DEADLINE, Timestamp::from_millis(0)).await;
    assert_eq!(delivery::outcome(&reply), Outcome::Delivered);
    assert_eq!(fake.wait_for(1, DEADLINE).await[0].content(), "[bg] from the journal");
}

#[test]
fn an_entry_that_cannot_work_is_refused_before_anything_is_sent() {
    let made = |base: &str, token: &str, id: &str| {
        Discord::to_channel(client(), base, &Secret::new(token), id).map(|discord| discord.api)
    };
    let base = "https://discord.com";
    assert_eq!(made(base, "token", "12").as_deref(), Ok("https://discord.com/api/v10"));
    assert_eq!(
        made("http://localhost:8080/proxy/", "token", "12").as_deref(),
        Ok("http://localhost:8080/proxy/api/v10")
    );
    for bad in ["discord.com", "ftp://discord.com", "https://u:p@discord.com", "https://discord.com/?x=y", ""]
    {
        assert_eq!(made(bad, "token", "12"), Err(Invalid::ApiBase), "{bad}");
    }
    for bad in ["", " ", "to ken", "tok\u{fc}n", "a\r\nb"] {
        assert_eq!(made(base, bad, "12"), Err(Invalid::Token), "{bad:?}");
    }
    for bad in ["", "12a", "../../users", "123456789012345678901"] {
        assert_eq!(made(base, "token", bad), Err(Invalid::Id("channel_id")), "{bad}");
    }
}

#[test]
fn a_nonce_fits_into_discords_twenty_five_characters() {
    for number in 0..5 {
        assert!(part_nonce(Uuid::max(), number).len() <= 25);
    }
    assert_ne!(part_nonce(EVENT, 0), part_nonce(EVENT, 1));
}
