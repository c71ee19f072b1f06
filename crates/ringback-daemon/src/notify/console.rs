//! The console: a message as one line on the daemon's standard output.

use std::io::{self, Write};

use ringback_model::delivery::{Answer, Failure, Reply};
use ringback_model::escape;

use super::Message;

/// Prints the message; that counts as an answer of 200.
pub(super) fn print(message: &Message) -> Reply {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", line(message)).and_then(|()| out.flush()) {
        Ok(()) => Ok(Answer { status: 200, ..Answer::default() }),
        Err(error) => Err(Failure::Broken(format!("standard output: {}", error.kind()))),
    }
}

/// The message on one line, with what a terminal would act upon escaped.
fn line(message: &Message) -> String {
    let text = match &message.embed {
        Some(embed) if message.text.trim().is_empty() => embed.as_text(),
        _ => message.text.clone(),
    };
    format!("message   {}", escape::one_line(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_with_control_characters_escaped() {
        let message = Message::of_text("[bg] build failed\r\n\tsince 10:00 \u{1b}]0;x\u{7}\u{202e}");
        assert_eq!(line(&message), "message   [bg] build failed since 10:00 \\u001b]0;x\\u0007\\u202e");
    }

    #[test]
    fn a_printed_message_is_delivered() {
        assert_eq!(print(&Message::of_text("[bg] hello")).map(|answer| answer.status), Ok(200));
    }
}
