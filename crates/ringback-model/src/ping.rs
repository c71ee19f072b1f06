//! Whether a run may ping the user, and what its tools answer.
//!
//! Owns: the order of the checks, the texts of answers and refusals, and the shape of what is sent. Does not know the
//! tools' protocol, where messages are delivered, or how the budget is kept: the caller takes the ping from the
//! [`budget`](crate::budget) and journals the message in one step when the decision says so.

pub mod embed;

pub use embed::{Color, Embed, EmbedInput, InvalidEmbed};

use crate::budget::Level;
use crate::escape;

/// What `ping_user` answers once the message is journaled.
pub const MESSAGE_SENT: &str = "Message sent.";
/// What `discord_embed` answers once the message is journaled.
pub const EMBED_SENT: &str = "Embed sent.";
/// Characters sent of one message.
pub const MESSAGE_CHARS: usize = 8_000;

/// What is known when a run asks to ping.
#[derive(Clone, Copy, Debug)]
pub struct PingCheck<'a> {
    /// The run has the tools that reach the user.
    pub allow_ping: bool,
    /// Pings and embeds that this run has sent, critical ones not counted.
    pub already_sent: u32,
    /// The main session is neither idle nor waiting.
    pub busy: bool,
    /// The budget at this moment.
    pub budget: &'a Level,
    /// The run has `report_updates`.
    pub may_report: bool,
    /// The agent says that the user would be devastated to miss it.
    pub critical: bool,
}

/// What follows from a [`PingCheck`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take one ping from the budget and send.
    Send,
    /// Count one critical ping and send; the budget stays as it is.
    SendCritical,
    /// Send nothing; the text is the tool's answer, for the agent to read.
    Refuse(String),
}

/// Decides about a ping or an embed. Critical ones pass every check but the first: a run without the tools cannot
/// send at all.
pub fn decide(check: &PingCheck<'_>) -> Decision {
    if !check.allow_ping {
        return Decision::Refuse("Pinging is disabled for this background task.".to_owned());
    }
    if check.critical {
        return Decision::SendCritical;
    }
    let why = if check.already_sent > 0 {
        "Already sent 1 ping this session. A run may send no more than that.".to_owned()
    } else if check.busy {
        "User is mid-conversation. A ping now would interrupt them.".to_owned()
    } else if check.budget.available == 0 {
        match check.budget.next_refill_minutes {
            Some(minutes) => {
                format!("Budget exhausted (0 remaining). The next ping comes back in {minutes} min.")
            }
            None => "Budget exhausted (0 remaining). No ping comes back by itself.".to_owned(),
        }
    } else {
        return Decision::Send;
    };
    let instead = if check.may_report {
        "Use report_updates for what the main session should know."
    } else {
        "Finish the task without a ping."
    };
    Decision::Refuse(format!(
        "{why} {instead} Only what the user would be devastated to miss may go out now, with critical=True."
    ))
}

/// The agent's message says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message is empty")]
pub struct EmptyMessage;

/// The text that a ping sends: `[bg] MESSAGE`, cut with a mark at [`MESSAGE_CHARS`].
pub fn message_text(message: &str) -> Result<String, EmptyMessage> {
    let message = message.trim();
    if message.is_empty() {
        return Err(EmptyMessage);
    }
    Ok(escape::cut_with_mark(&format!("[bg] {message}"), MESSAGE_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Level =
        Level { available: 3, capacity: 5, next_refill_minutes: Some(40), used_today: 2, critical_today: 0 };
    const EMPTY: Level = Level { available: 0, ..HALF };

    fn check(budget: &Level) -> PingCheck<'_> {
        PingCheck {
            allow_ping: true,
            already_sent: 0,
            busy: false,
            budget,
            may_report: true,
            critical: false,
        }
    }

    fn opening(check: &PingCheck<'_>) -> String {
        match decide(check) {
            Decision::Refuse(text) => text.split_inclusive('.').next().unwrap_or_default().to_owned(),
            sent => format!("{sent:?}"),
        }
    }

    #[test]
    fn the_first_reason_against_a_ping_is_told_and_critical_passes_all_but_disabled() {
        for allow_ping in [false, true] {
            for critical in [false, true] {
                for already_sent in [0, 1] {
                    for busy in [false, true] {
                        for budget in [&HALF, &EMPTY] {
                            let asked =
                                PingCheck { allow_ping, already_sent, busy, critical, ..check(budget) };
                            let expected = match (allow_ping, critical, already_sent, busy, budget.available)
                            {
                                (false, ..) => "Pinging is disabled for this background task.",
                                (true, true, ..) => "SendCritical",
                                (true, false, 1, ..) => "Already sent 1 ping this session.",
                                (true, false, _, true, _) => "User is mid-conversation.",
                                (true, false, _, false, 0) => "Budget exhausted (0 remaining).",
                                (true, false, _, false, _) => "Send",
                            };
                            assert_eq!(opening(&asked), expected, "{asked:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn refusals_say_what_to_do_instead() {
        let text = |check: &PingCheck<'_>| match decide(check) {
            Decision::Refuse(text) => text,
            sent => panic!("{sent:?}"),
        };
        let critical = "Only what the user would be devastated to miss may go out now, with critical=True.";
        assert_eq!(
            text(&PingCheck { already_sent: 1, ..check(&HALF) }),
            format!(
                "Already sent 1 ping this session. A run may send no more than that. \
                 Use report_updates for what the main session should know. {critical}"
            )
        );
        assert_eq!(
            text(&PingCheck { busy: true, may_report: false, ..check(&HALF) }),
            format!(
                "User is mid-conversation. A ping now would interrupt them. \
                 Finish the task without a ping. {critical}"
            )
        );
        assert_eq!(
            text(&check(&EMPTY)),
            format!(
                "Budget exhausted (0 remaining). The next ping comes back in 40 min. \
                 Use report_updates for what the main session should know. {critical}"
            )
        );
        let none = Level { capacity: 0, next_refill_minutes: None, ..EMPTY };
        assert!(
            text(&check(&none)).starts_with(
                "Budget exhausted (0 remaining). No ping comes back by itself. Use report_updates"
            )
        );
    }

    #[test]
    fn a_ping_is_marked_as_background_and_cut_with_a_mark() {
        assert_eq!(message_text(" build failed\n").as_deref(), Ok("[bg] build failed"));
        assert_eq!(message_text(" \n"), Err(EmptyMessage));
        let long = message_text(&"x".repeat(MESSAGE_CHARS)).unwrap();
        assert_eq!(long.chars().count(), MESSAGE_CHARS);
        assert!(long.ends_with('\u{2026}'));
    }
}
