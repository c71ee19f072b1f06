//! The sections of `docs/hooks.md`: the one place that says, for each sender, what to paste where and which file to
//! begin with. The program reads them out of the page itself.

use ringback_webhook::senders::PRESETS;

/// The page.
const PAGE: &str = include_str!("../../../../../docs/hooks.md");

/// Who makes the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// Its owner chooses it.
    Owner,
    /// Likewise, as `USER:PASSWORD`.
    OwnersPair,
    /// The sender shows it.
    Sender,
}

/// A sender and where the page has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// A name that `auth` of a hook file knows.
    pub(super) name: &'static str,
    /// Another name that people look for.
    pub(super) alias: Option<&'static str>,
    title: &'static str,
    pub(super) maker: Maker,
    /// What of the file is an example and has to become the owner's.
    pub(super) edit: Option<&'static str>,
}

const OF_OWNER: Sender = Sender { name: "", alias: None, title: "", maker: Maker::Owner, edit: None };
const OF_SENDER: Sender = Sender { maker: Maker::Sender, ..OF_OWNER };

/// Every sender, by name.
pub(super) const ALL: [Sender; 17] = [
    Sender { name: "alertmanager", alias: Some("grafana"), title: "Alertmanager and Grafana", ..OF_OWNER },
    Sender { name: "basic", title: "A token in a header", maker: Maker::OwnersPair, ..OF_OWNER },
    Sender { name: "bearer", title: "A token in a header", ..OF_OWNER },
    Sender {
        name: "discord",
        title: "Discord",
        edit: Some("123456789012345678 is to be your own id at Discord"),
        ..OF_SENDER
    },
    Sender { name: "github", title: "GitHub", ..OF_OWNER },
    Sender { name: "gitlab", title: "GitLab", ..OF_OWNER },
    Sender { name: "header", alias: Some("uptime-kuma"), title: "A token in a header", ..OF_OWNER },
    Sender { name: "hmac", alias: Some("gitea"), title: "Any other HMAC", ..OF_OWNER },
    Sender { name: "linear", title: "Linear", ..OF_SENDER },
    Sender { name: "pagerduty", title: "PagerDuty", ..OF_SENDER },
    Sender { name: "sentry", title: "Sentry", ..OF_SENDER },
    Sender { name: "slack", title: "Slack", ..OF_SENDER },
    Sender { name: "standard-webhooks", title: "Standard Webhooks and Svix", ..OF_SENDER },
    Sender { name: "stripe", title: "Stripe", ..OF_SENDER },
    Sender { name: "svix", title: "Standard Webhooks and Svix", ..OF_SENDER },
    Sender {
        name: "telegram",
        title: "Telegram",
        edit: Some("123456789 is to be your own id at Telegram"),
        ..OF_OWNER
    },
    Sender {
        name: "twilio",
        title: "Twilio",
        edit: Some("YOUR-HOST is to be the name of your tunnel or proxy, and +15551234567 your own number"),
        ..OF_SENDER
    },
];

// Every preset, and the two schemes that a file describes.
const _: () = assert!(ALL.len() == PRESETS.len() + 2);

/// The sender of a name.
pub(super) fn sender(name: &str) -> Option<&'static Sender> {
    ALL.iter().find(|sender| sender.name == name || sender.alias == Some(name))
}

/// A sender's file, and what to fill in on its screens.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The hook file.
    pub(super) file: String,
    /// What stands between the title and the file: prose, tables and commands.
    pub(super) steps: String,
}

impl Sender {
    fn section(&self) -> Option<&'static str> {
        let from = PAGE.split_once(&format!("\n## {}\n", self.title))?.1;
        Some(from.split("\n## ").next().unwrap_or(from))
    }

    /// The page's file and steps for a hook called `slug` whose secret is in the file `secret_file`, beside it.
    /// `None` only if the page has no such section.
    pub(super) fn start(&self, slug: &str, secret_file: &str, shown_secret: &str) -> Option<Start> {
        let section = self.section()?;
        let (steps, rest) = section.split_once("\n```markdown\n")?;
        let (file, _) = rest.split_once("\n```\n")?;
        let example = file.lines().find_map(|line| line.strip_prefix("id: "))?;
        let variable = variable(file)?;
        let auth = format!("{{ file: {secret_file} }}");
        let mut file = file.replacen(&format!("id: {example}"), &format!("id: {slug}"), 1);
        file = match self.name {
            // The section's example is another one of its kind.
            "basic" | "bearer" | "standard-webhooks" => {
                with_line(&file, "auth: ", &format!("auth: {{ {}: {auth} }}", self.name))
            }
            _ => file.replacen(variable, &auth, 1),
        };
        let url = |text: &str| text.replace(&format!("/hook/{example}"), &format!("/hook/{slug}"));
        let steps = match self.name {
            "basic" => format!(
                "Your caller sends POST https://YOUR-HOST/hook/{example} with Basic authentication: user and password are\n\
                 the two parts of {shown_secret}, before and after the colon."
            ),
            "bearer" => format!(
                "Your caller sends POST https://YOUR-HOST/hook/{example} with the header\n\
                 `Authorization: Bearer SECRET`; SECRET is the content of {shown_secret}."
            ),
            "telegram" => steps.replace("$TELEGRAM_HOOK_SECRET", &format!("$(cat {shown_secret})")),
            _ => steps.to_owned(),
        };
        let steps = steps
            .replace(
                &format!("the value of `{variable}`, chosen by you"),
                &format!("the content of {shown_secret}"),
            )
            .replace(&format!("the value of `{variable}`"), &format!("the content of {shown_secret}"))
            .replace(&format!("the value of {variable}"), &format!("the content of {shown_secret}"))
            .replace(&format!("`{variable}`"), shown_secret);
        Some(Start { file: url(&file) + "\n", steps: url(steps.trim()) })
    }
}

/// The variable that the file of an example names as its secret.
fn variable(file: &str) -> Option<&str> {
    let auth = file.split_once("\nauth:")?.1;
    let is_variable =
        |word: &&str| word.len() > 5 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    auth.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).find(is_variable)
}

fn with_line(text: &str, prefix: &str, line: &str) -> String {
    let lines = text.lines().map(|old| if old.starts_with(prefix) { line } else { old });
    lines.collect::<Vec<_>>().join("\n")
}

/// Every hook file that the page shows.
#[cfg(test)]
pub(super) fn examples() -> Vec<&'static str> {
    let after = PAGE.split("\n```markdown\n").skip(1);
    after.filter_map(|rest| rest.split_once("\n```\n")).map(|(file, _)| file).collect()
}
