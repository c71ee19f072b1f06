//! What the model says, turn by turn.

use std::time::Duration;

use serde_json::Value;

/// The turns of one conversation.
#[derive(Clone, Debug)]
pub struct Script {
    turns: Vec<Turn>,
    otherwise: Turn,
}

impl Script {
    /// These turns; after the last one, a short text.
    pub fn new(turns: impl IntoIterator<Item = Turn>) -> Script {
        Script { turns: turns.into_iter().collect(), otherwise: Turn::text("Nothing more is scripted.") }
    }

    /// The turn that is served after the last one.
    pub fn otherwise(mut self, turn: Turn) -> Script {
        self.otherwise = turn;
        self
    }

    pub(super) fn turn(&self, number: usize) -> &Turn {
        self.turns.get(number).unwrap_or(&self.otherwise)
    }
}

/// One answer of the model: thinking, then text, then tool calls.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    pub(super) delay: Duration,
    pub(super) thinking: Option<String>,
    pub(super) text: Option<String>,
    pub(super) tools: Vec<Tool>,
}

#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) input: Input,
}

#[derive(Clone, Debug)]
pub(super) enum Input {
    Json(Value),
    /// A custom tool of Codex: `exec` takes JavaScript, `apply_patch` a patch.
    Freeform(String),
}

impl Turn {
    /// A turn that says this and, unless tools are added, ends the agent's turn.
    pub fn text(text: impl Into<String>) -> Turn {
        Turn { text: Some(text.into()), ..Turn::default() }
    }

    /// A turn that calls this tool.
    pub fn tool(name: &str, input: Value) -> Turn {
        Turn::default().and_tool(name, input)
    }

    /// A turn that calls this custom tool of Codex.
    pub fn freeform(name: &str, input: impl Into<String>) -> Turn {
        let tool = Tool { name: name.to_owned(), input: Input::Freeform(input.into()) };
        Turn { tools: vec![tool], ..Turn::default() }
    }

    /// Adds a tool call; several in one turn run in parallel.
    pub fn and_tool(mut self, name: &str, input: Value) -> Turn {
        self.tools.push(Tool { name: name.to_owned(), input: Input::Json(input) });
        self
    }

    /// Says this before the tools.
    pub fn saying(mut self, text: impl Into<String>) -> Turn {
        self.text = Some(text.into());
        self
    }

    /// Shows this thinking first. Skipped for a request that asks for none.
    pub fn thinking(mut self, thinking: impl Into<String>) -> Turn {
        self.thinking = Some(thinking.into());
        self
    }

    /// Lets that much time pass between the request and the first block.
    pub fn after(mut self, delay: Duration) -> Turn {
        self.delay = delay;
        self
    }
}
