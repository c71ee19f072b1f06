//! Reading session files for what decides about activity and sums, on two threads.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    prompt_source: Cow<'a, str>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    stop_reason: Option<Cow<'a, str>>,
    usage: Option<Usage>,
    #[serde(borrow)]
    content: Content<'a>,
}

#[derive(Deserialize)]
struct Usage {
    input_tokens: u64,
    output_tokens: u64,
}

/// A text, or blocks.
enum Content<'a> {
    Text(bool),
    Blocks(Vec<Block<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Content<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or blocks")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content<'de>, E> {
                Ok(Content::Text(text.is_empty()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content<'de>, A::Error> {
                let mut blocks = Vec::new();
                while let Some(block) = seq.next_element()? {
                    blocks.push(block);
                }
                Ok(Content::Blocks(blocks))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// Reads all files and counts the messages: prompts of a person, and answers of the model.
pub(crate) fn messages(paths: &[PathBuf]) -> anyhow::Result<usize> {
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<usize> {
        let mut sum = 0;
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            for line in content.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                sum += usize::from(is_message(&serde_json::from_slice(line)?));
            }
        }
        Ok(sum)
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().map(|t| t.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?).sum()
    })
}

fn is_message(record: &Record<'_>) -> bool {
    let Some(message) = &record.message else { return false };
    let tokens = message.usage.as_ref().map_or(0, |u| u.input_tokens + u.output_tokens);
    let says = match &message.content {
        Content::Blocks(blocks) => blocks.iter().any(|block| block.kind != "tool_result"),
        Content::Text(is_empty) => !is_empty,
    };
    let is_answer = record.kind == "assistant" && tokens > 0 && message.stop_reason.is_some();
    let is_prompt = record.kind == "user" && record.prompt_source == "typed";
    says && !record.timestamp.is_empty() && (is_answer || is_prompt)
}
