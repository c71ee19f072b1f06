//! What an event says to a person: one table from activity and reason to words, colour and urgency.

use ringback_model::event::EventKind;
use ringback_model::ping::Color;
use ringback_model::ping::embed::{Button, Field};
use ringback_model::{Activity, Event, Reason, escape, resume};

use super::card::{Card, Urgency};
use super::text::cut;

/// Units of one value; a path or a name that is longer says no more.
const VALUE_UNITS: usize = 300;
/// Units of each of the two names in a heading.
const NAME_UNITS: usize = 80;

/// The card of an event.
pub fn card(event: &Event) -> Card {
    if event.event == EventKind::Ping {
        return Card {
            title: "Ringback test".to_owned(),
            text: "Changes of your agents' sessions will appear here.".to_owned(),
            footer: "ringback".to_owned(),
            is_literal: true,
            ..Card::default()
        };
    }
    let (phrase, color, urgency) = words(event.to, event.reason);
    Card {
        title: format!("{}: {} {phrase}", place(event), agent(event)),
        text: String::new(),
        fields: fields(event),
        command: resume::command(event.agent, event.session_id.as_str()).map(|command| line(&command)),
        links: event
            .api
            .iter()
            .map(|api| Button { label: "Open session".to_owned(), url: api.session_url.clone() })
            .collect(),
        color,
        urgency,
        footer: "ringback".to_owned(),
        is_literal: true,
    }
}

/// The whole table. A reason says more than its activity.
fn words(to: Activity, reason: Option<Reason>) -> (&'static str, Color, Urgency) {
    use Urgency::{High, Low, Normal};
    match (to, reason) {
        (_, Some(Reason::TurnEnd)) => ("finished its turn", Color::Green, Normal),
        (_, Some(Reason::Permission)) => ("needs your permission", Color::Yellow, High),
        (_, Some(Reason::Question)) => ("has a question", Color::Yellow, High),
        (_, Some(Reason::Error)) => ("stopped at an error", Color::Red, High),
        (_, Some(Reason::RateLimit)) => ("hit a rate limit", Color::Red, High),
        (_, Some(Reason::Interrupted)) => ("was interrupted", Color::Blue, Low),
        (_, Some(Reason::Exited)) => ("ended", Color::Purple, Low),
        (_, Some(Reason::Timeout)) => ("waited and went idle", Color::Purple, Low),
        (_, Some(Reason::Stuck)) => ("seems to be stuck", Color::Red, High),
        (Activity::Waiting, None) => ("is waiting for you", Color::Yellow, Normal),
        (Activity::Idle, None) => ("is idle", Color::Purple, Low),
        (Activity::Thinking, None) => ("is thinking", Color::Blue, Low),
        (Activity::Compacting, None) => ("is compacting its conversation", Color::Blue, Low),
        (Activity::Reading, None) => ("is reading", Color::Blue, Low),
        (Activity::Writing, None) => ("is writing", Color::Blue, Low),
        (Activity::Running, None) => ("is running a command", Color::Blue, Low),
        (Activity::Searching, None) => ("is searching", Color::Blue, Low),
        (Activity::Browsing, None) => ("is browsing the web", Color::Blue, Low),
        (Activity::Spawning, None) => ("is waiting for its sub-agents", Color::Blue, Low),
    }
}

fn fields(event: &Event) -> Vec<Field> {
    let before = match event.duration_ms {
        Some(duration) => format!("{} for {}", event.from, age(duration)),
        None => event.from.to_string(),
    };
    let session = event.session_name.as_deref().unwrap_or(event.session_id.as_str());
    let values = [
        ("Project", Some(event.project_path.clone())),
        ("Session", Some(session.to_owned())),
        ("Activity", Some(event.to.to_string())),
        ("Reason", event.reason.map(|reason| reason.as_str().replace('_', " "))),
        ("Before", Some(before)),
        ("Branch", event.git_branch.clone()),
        ("Host", event.host.clone()),
        ("Source", event.source.clone()),
    ];
    let shown = values.into_iter().filter_map(|(name, value)| Some((name, line(&value?))));
    shown
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Field { name: name.to_owned(), value, inline: name != "Project" })
        .collect()
}

/// The project's directory, which tells sessions apart at a glance.
fn place(event: &Event) -> String {
    let path = event.project_path.trim_end_matches(['/', '\\']);
    let name = line(path.rsplit(['/', '\\']).next().unwrap_or_default());
    if name.is_empty() { "ringback".to_owned() } else { cut(&name, NAME_UNITS) }
}

fn agent(event: &Event) -> String {
    let word = event.agent.as_str();
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn line(text: &str) -> String {
    cut(&escape::one_line(text), VALUE_UNITS)
}

/// Milliseconds in the two largest units that say something: `3m 12s`.
fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => "less than a second".to_owned(),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_two_units() {
        for (ms, told) in [
            (0, "less than a second"),
            (999, "less than a second"),
            (59_999, "59s"),
            (192_000, "3m 12s"),
            (3_600_000, "1h 0m"),
            (7_500_000, "2h 5m"),
            (90_000_000, "1d 1h"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(age(ms), told, "{ms}");
        }
    }
}
