//! The desktop: a message as a notification of the session's notification service, over the session bus.
//!
//! Each message has a connection of its own: they are rare, and a bus that was started anew is found again.

use std::collections::HashMap;
use std::time::Duration;

use ringback_model::delivery::{Answer, Failure, Reply};
use ringback_webhook::format::text::{cut, cut_escaped, on_one_line};
use ringback_webhook::format::{Card, Urgency};
use zbus::Variant;

const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// Units of the heading; services show one line of it.
const SUMMARY: usize = 200;
/// Units of the text; services show a few lines of it.
const BODY: usize = 2_000;

/// The desktop's notifications.
#[derive(Debug)]
pub struct Desktop {
    /// The session bus's address; `None` = there is none.
    bus: Option<String>,
}

impl Desktop {
    /// By the address of a session bus, such as `unix:path=/run/user/1000/bus`.
    pub fn new(bus: Option<String>) -> Self {
        Desktop { bus }
    }

    /// Shows the message; that counts as an answer of 200.
    pub(super) async fn send(&self, card: &Card, timeout: Duration) -> Reply {
        let Some(bus) = &self.bus else {
            let why = "there is no session bus: DBUS_SESSION_BUS_ADDRESS is not set";
            return Err(Failure::Broken(why.to_owned()));
        };
        match tokio::time::timeout(timeout, Box::pin(show(bus, card))).await {
            Ok(Ok(())) => Ok(Answer { status: 200, ..Answer::default() }),
            Ok(Err(error)) => Err(Failure::Broken(format!("desktop notifications: {error}"))),
            Err(_elapsed) => Err(Failure::Timeout),
        }
    }
}

async fn show(bus: &str, card: &Card) -> zbus::Result<()> {
    let (summary, body) = summary_and_body(card);
    let urgency: u8 = match card.urgency {
        Urgency::Low => 0,
        Urgency::Normal => 1,
        Urgency::High => 2,
    };
    let hints = HashMap::from([("urgency", Variant::from(urgency))]);
    // Program, notification replaced, icon, texts, actions, hints, and the service's own time on the screen.
    let arguments = ("ringback", 0_u32, "", summary, body, Vec::<&str>::new(), hints, -1_i32);
    let connection = zbus::connection::Builder::address(bus).build().await?;
    connection.call_method(Some(SERVICE), PATH, Some(SERVICE), "Notify", &arguments).await?;
    Ok(())
}

/// A plain text's heading is the program's name. The body is markup: what could be read as such is escaped.
fn summary_and_body(card: &Card) -> (String, String) {
    let title = on_one_line(&card.title);
    let summary = if title.is_empty() { "ringback".to_owned() } else { cut(&title, SUMMARY) };
    let links = card.links.iter().filter(|link| link.url.starts_with("https://"));
    let mut lines = card.lines();
    lines.extend(links.map(|link| format!("{}: {}", link.label, link.url)));
    let body = cut_escaped(&lines.join("\n"), BODY, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        // Not allowed in a text on the bus.
        '\0' => Some("\u{fffd}"),
        _ => None,
    });
    (summary.replace('\0', "\u{fffd}"), body)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use ringback_model::Outcome;
    use ringback_model::delivery;
    use ringback_model::ping::Embed;
    use ringback_model::ping::embed::{Button, EmbedInput};
    use ringback_testkit::DEADLINE;

    use super::*;

    type Shown = Arc<Mutex<Vec<(String, String, u8)>>>;

    /// As much of a bus as a client asks for.
    struct Bus;

    #[zbus::interface(name = "org.freedesktop.DBus")]
    impl Bus {
        fn hello(&self) -> String {
            ":1.1".to_owned()
        }
    }

    struct Notifications(Shown);

    #[zbus::interface(name = "org.freedesktop.Notifications")]
    impl Notifications {
        #[expect(clippy::too_many_arguments, reason = "the service's own method has that many")]
        fn notify(
            &self,
            program: String,
            _replaced: u32,
            _icon: String,
            summary: String,
            body: String,
            _actions: Vec<String>,
            hints: HashMap<String, zbus::OwnedVariant>,
            _expires: i32,
        ) -> u32 {
            assert_eq!(program, "ringback");
            let urgency = u8::try_from(&hints["urgency"]).unwrap();
            self.0.lock().unwrap().push((summary, body, urgency));
            1
        }
    }

    /// A session bus for one client; gives its address.
    fn session_bus(directory: &std::path::Path) -> (String, Shown) {
        let path = directory.join("bus");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let shown = Shown::default();
        let notifications = Notifications(Arc::clone(&shown));
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = stream.into_std().unwrap();
            let server = zbus::connection::Builder::unix_stream(stream)
                .server(zbus::Guid::generate())
                .p2p()
                .serve_at("/org/freedesktop/DBus", Bus)
                .serve_at(PATH, notifications)
                .build()
                .await
                .unwrap();
            // The connection lives as long as the test's runtime.
            std::future::pending::<()>().await;
            drop(server);
        });
        (format!("unix:path={}", path.display()), shown)
    }

    #[tokio::test]
    async fn a_message_is_a_notification_on_the_session_bus() {
        let directory = tempfile::tempdir().unwrap();
        let (bus, shown) = session_bus(directory.path());
        let card = Card { urgency: Urgency::High, ..Card::of_text("[bg] <b>done</b> & dusted") };
        let reply = Desktop::new(Some(bus)).send(&card, DEADLINE).await;
        assert_eq!(delivery::outcome(&reply), Outcome::Delivered, "{reply:?}");
        let want = ("ringback".to_owned(), "[bg] &lt;b&gt;done&lt;/b&gt; &amp; dusted".to_owned(), 2);
        assert_eq!(*shown.lock().unwrap(), [want]);
    }

    #[test]
    fn an_embed_is_a_heading_and_lines_with_its_links() {
        let input = EmbedInput {
            title: "Build failed".to_owned(),
            description: Some("main is red".to_owned()),
            buttons: vec![Button { label: "Log".to_owned(), url: "https://ci.example.com/1".to_owned() }],
            ..EmbedInput::default()
        };
        let card = Card::of_embed(&Embed::from_input(&input).unwrap(), None);
        let want = ("Build failed".to_owned(), "main is red\nLog: https://ci.example.com/1".to_owned());
        assert_eq!(summary_and_body(&card), want);
    }

    #[tokio::test]
    async fn without_a_session_bus_the_reason_is_told() {
        let card = Card::of_text("x");
        let Err(Failure::Broken(why)) = Desktop::new(None).send(&card, DEADLINE).await else { panic!() };
        assert!(why.contains("no session bus"), "{why}");
        let gone = Some("unix:path=/nonexistent/bus".to_owned());
        let reply = Desktop::new(gone).send(&card, DEADLINE).await;
        assert!(matches!(reply, Err(Failure::Broken(_))), "{reply:?}");
    }
}
