//! `[[notify]]`: where messages to the user go.

use std::collections::BTreeSet;

use ringback_model::{Format, Secret};
use ringback_webhook::format::Destination;
use ringback_webhook::format::discord::{is_id, webhook_of};
use url::Url;

use super::section::Section;
use crate::env::Env;

/// One `[[notify]]`.
#[derive(Clone, Debug)]
pub enum Notify {
    /// A bot's direct messages or channel.
    DiscordBot {
        /// The bot's token.
        token: Secret,
        /// Whom it writes to: `Ok` = a user, `Err` = a channel.
        target: Result<String, String>,
        /// Scheme and host.
        api_base: String,
    },
    /// An address that takes messages in a format.
    Hook {
        /// The name of its queue.
        lane: String,
        /// The format.
        format: Format,
        /// The address, which is a secret.
        url: Secret,
        /// What goes into the `Authorization` header.
        token: Option<Secret>,
    },
    /// The desktop's notifications.
    Desktop {
        /// Address of the session bus; `None` = there is none.
        bus: Option<String>,
    },
    /// The daemon's standard output.
    Console,
}

impl Notify {
    /// What takes messages where no notifier is configured: the desktop where there is a session bus, else the
    /// console.
    pub(super) fn stand_in(env: &Env) -> Notify {
        match session_bus(env) {
            Some(bus) => Notify::Desktop { bus: Some(bus) },
            None => Notify::Console,
        }
    }

    /// The name of its queue: of where it leads, so that messages that wait are not led elsewhere when the list is
    /// reordered. Holds no secret.
    pub fn lane_name(&self) -> String {
        match self {
            Notify::DiscordBot { target: Ok(user), .. } => format!("notify:discord-user-{user}"),
            Notify::DiscordBot { target: Err(channel), .. } => format!("notify:discord-channel-{channel}"),
            Notify::Hook { lane, .. } => lane.clone(),
            Notify::Desktop { .. } => "notify:desktop".to_owned(),
            Notify::Console => "notify:console".to_owned(),
        }
    }
}

/// Address of the session bus: where the variable says, else where systemd puts it.
fn session_bus(env: &Env) -> Option<String> {
    if let Some(address) = env.get("DBUS_SESSION_BUS_ADDRESS") {
        return Some(address.to_owned());
    }
    let socket = env.path("XDG_RUNTIME_DIR")?.join("bus");
    socket.exists().then(|| format!("unix:path={}", socket.display()))
}

pub(super) fn read(top: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Vec<Notify> {
    let mut notifiers: Vec<Notify> = Vec::new();
    for s in top.tables_of_list("notify") {
        let found = notifier(&s, env, never);
        s.finish();
        notifiers.extend(found.and_then(|found| apart(found, &notifiers)));
    }
    notifiers
}

/// Gives every address a queue of its own. The same person, channel, desktop or console twice is one.
fn apart(mut found: Notify, known: &[Notify]) -> Option<Notify> {
    let is_taken = |name: &str| known.iter().any(|known| known.lane_name() == name);
    let name = found.lane_name();
    if !is_taken(&name) {
        return Some(found);
    }
    let Notify::Hook { lane, .. } = &mut found else { return None };
    *lane = (2..).map(|n| format!("{name}-{n}")).find(|name| !is_taken(name))?;
    Some(found)
}

const VALID: &str = "valid: discord slack ntfy telegram desktop console";

fn notifier(s: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Option<Notify> {
    match s.text("type").as_deref() {
        Some("console") => Some(Notify::Console),
        Some("desktop") => Some(Notify::Desktop { bus: session_bus(env) }),
        Some("discord") => discord(s, env, never),
        Some("slack") => {
            let Some(given) = secret(s, "url_env", env, never) else {
                needs(
                    s,
                    "url_env",
                    "slack needs url_env: the variable that holds the incoming webhook's url",
                );
                return None;
            };
            let lane = lane("slack", &given.variable);
            hook(s, "url_env", lane, Format::Slack, given.value.reveal(), None)
        }
        Some("ntfy") => ntfy(s, env, never),
        Some("telegram") => telegram(s, env, never),
        Some(_) => {
            s.error("type", &format!("unknown notifier; {VALID}"));
            None
        }
        None => {
            needs(s, "type", &format!("a type is required; {VALID}"));
            None
        }
    }
}

/// A secret and the variable that holds it.
struct Given {
    variable: String,
    value: Secret,
}

fn secret(s: &Section<'_>, key: &'static str, env: &Env, never: &mut BTreeSet<String>) -> Option<Given> {
    let variable = s.text(key)?;
    never.insert(variable.clone());
    let value = env.get(&variable).map(|value| Secret::new(value.trim()));
    if value.is_none() {
        s.error(key, &format!("the variable {variable:?} is not set"));
    }
    Some(Given { value: value?, variable })
}

/// Says what is missing, unless what is there was found wrong already.
fn needs(s: &Section<'_>, key: &'static str, what: &str) {
    if !s.has(key) {
        s.error("type", what);
    }
}

/// The variable's name is no secret, and stays when the list is reordered.
fn lane(kind: &str, variable: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("notify:{kind}-{}", variable.chars().take(64).map(plain).collect::<String>())
}

/// Checks the address as the notifier will read it.
fn hook(
    s: &Section<'_>,
    key: &'static str,
    lane: String,
    format: Format,
    url: &str,
    token: Option<Secret>,
) -> Option<Notify> {
    let is_web = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_web {
        s.error(key, "not a URL with scheme and host; expected https://HOST/…");
        return None;
    }
    if let Err(misfit) = Destination::of(format, url) {
        s.error(key, &misfit.to_string());
        return None;
    }
    Some(Notify::Hook { lane, format, url: Secret::new(url), token })
}

fn discord(s: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Option<Notify> {
    let (token, url) = (secret(s, "token_env", env, never), secret(s, "url_env", env, never));
    let api_base = s.text("api_base");
    let (user, channel) = (s.text("user_id"), s.text("channel_id"));
    match (token, url, user, channel) {
        (Some(token), None, user, channel) if user.is_some() != channel.is_some() => {
            let target = user.ok_or_else(|| channel.unwrap_or_default());
            let api_base = api_base.unwrap_or_else(|| "https://discord.com".to_owned());
            Some(Notify::DiscordBot { token: token.value, target, api_base })
        }
        (None, Some(url), None, None) => {
            let Some(execute) = discord_webhook(url.value.reveal(), api_base.as_deref()) else {
                s.error("url_env", "the webhook's url must be https://discord.com/api/webhooks/ID/TOKEN");
                return None;
            };
            let lane = lane("discord", &url.variable);
            hook(s, "url_env", lane, Format::Discord, execute.as_str(), None)
        }
        _ => {
            s.error("type", "discord needs token_env with one of user_id and channel_id, or url_env alone");
            None
        }
    }
}

/// A channel webhook's address as Discord shows it, at another host where one is named. Its query may hold the
/// `thread_id`.
fn discord_webhook(url: &str, api_base: Option<&str>) -> Option<Url> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "https")?;
    let (id, token) = webhook_of(&url)?;
    let thread = url.query_pairs().find(|(name, _)| name == "thread_id").map(|(_, id)| id.into_owned());
    if thread.as_deref().is_some_and(|id| !is_id(id)) {
        return None;
    }
    let base = match api_base {
        Some(base) => base.trim().trim_end_matches('/').to_owned(),
        None => url.origin().ascii_serialization(),
    };
    let mut execute = Url::parse(&format!("{base}/api/v10/webhooks/{id}/{token}")).ok()?;
    if let Some(id) = thread {
        execute.query_pairs_mut().append_pair("thread_id", &id);
    }
    Some(execute)
}

fn ntfy(s: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Option<Notify> {
    let token = secret(s, "token_env", env, never);
    if s.has("token_env") && token.is_none() {
        return None;
    }
    let from_env = secret(s, "url_env", env, never);
    let (url, topic) = (s.text("url"), s.text("topic"));
    let token = token.map(|given| given.value);
    if let Some(given) = from_env {
        if url.is_some() || topic.is_some() {
            s.error("url_env", "give url_env, or url and topic");
            return None;
        }
        let lane = lane("ntfy", &given.variable);
        return hook(s, "url_env", lane, Format::Ntfy, given.value.reveal(), token);
    }
    if s.has("url_env") {
        return None;
    }
    let (key, address) = match (url, topic) {
        (Some(url), None) => ("url", url.trim().to_owned()),
        (url, Some(topic)) => {
            let server = url.unwrap_or_else(|| "https://ntfy.sh".to_owned());
            ("topic", format!("{}/{}", server.trim().trim_end_matches('/'), topic.trim()))
        }
        (None, None) => {
            s.error("type", "ntfy needs topic, at https://ntfy.sh or at the server that url names");
            return None;
        }
    };
    // Whoever knows a topic can read along: only the server is named.
    let host =
        Url::parse(&address).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    hook(s, key, format!("notify:ntfy-{host}"), Format::Ntfy, &address, token)
}

fn telegram(s: &Section<'_>, env: &Env, never: &mut BTreeSet<String>) -> Option<Notify> {
    let token = secret(s, "token_env", env, never);
    let chat = s.text_or_number("chat_id");
    let base = s.text("api_base").unwrap_or_else(|| "https://api.telegram.org".to_owned());
    let (Some(token), Some(chat)) = (token, chat) else {
        if !s.has("token_env") || !s.has("chat_id") {
            s.error("type", "telegram needs token_env and chat_id");
        }
        return None;
    };
    let token = token.value.reveal();
    let is_token = token.split_once(':').is_some_and(|(id, _)| is_id(id))
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_'));
    if !is_token {
        s.error("token_env", "not a bot's token: expected DIGITS:LETTERS");
        return None;
    }
    let is_chat = chat.strip_prefix('@').map_or_else(
        || chat.parse::<i64>().is_ok(),
        |name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
    );
    if !is_chat {
        s.error("chat_id", "expected a number, or the @name of a channel");
        return None;
    }
    let url = format!("{}/bot{token}/sendMessage?chat_id={chat}", base.trim().trim_end_matches('/'));
    hook(s, "api_base", format!("notify:telegram-{chat}"), Format::Telegram, &url, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discord_webhook_url_is_taken_as_discord_shows_it() {
        let made = |url: &str, base: Option<&str>| discord_webhook(url, base).map(String::from);
        assert_eq!(
            made("https://ptb.discord.com/api/v9/webhooks/12/a-B_c.9/?thread_id=34", None).as_deref(),
            Some("https://ptb.discord.com/api/v10/webhooks/12/a-B_c.9?thread_id=34")
        );
        assert_eq!(
            made("https://discord.com/api/webhooks/12/token", Some("http://localhost:8080/proxy/"))
                .as_deref(),
            Some("http://localhost:8080/proxy/api/v10/webhooks/12/token")
        );
        for url in [
            "",
            "x",
            "https://discord.com/api/webhooks/12",
            "https://discord.com/api/webhooks/x/token",
            "http://discord.com/api/webhooks/12/token",
            "https://discord.com/api/webhooks/12/to%20ken",
            "https://discord.com/api/webhooks/12/token/github",
            "https://discord.com/api/webhooks/12/token?thread_id=x",
            "https://hooks.example.com/services/12/token",
        ] {
            assert_eq!(made(url, None), None, "{url}");
        }
    }

    #[test]
    fn where_none_is_configured_the_desktop_stands_in_if_there_is_a_session_bus() {
        let env = |pairs: &[(&str, &str)]| {
            Env::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
        };
        assert!(matches!(Notify::stand_in(&env(&[])), Notify::Console));
        let bus = env(&[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1/bus")]);
        let Notify::Desktop { bus: Some(bus) } = Notify::stand_in(&bus) else { panic!() };
        assert_eq!(bus, "unix:path=/run/user/1/bus");
        let directory = tempfile::tempdir().unwrap();
        let runtime = env(&[("XDG_RUNTIME_DIR", directory.path().to_str().unwrap())]);
        assert!(matches!(Notify::stand_in(&runtime), Notify::Console));
        std::fs::write(directory.path().join("bus"), "").unwrap();
        assert!(matches!(Notify::stand_in(&runtime), Notify::Desktop { bus: Some(_) }));
    }
}
