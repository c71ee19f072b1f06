//! A Claude Code transcript that the test writes as the agent would.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use ringback_daemon::clock;
use ringback_testkit::Home;
use serde_json::{Value, json};

pub(crate) struct Transcript {
    path: PathBuf,
    cwd: String,
    id: String,
}

impl Transcript {
    /// A transcript that exists as a name only.
    pub(crate) fn new(home: &Home, id: &str) -> Transcript {
        let dir = home.path().join(".claude/projects/-project");
        std::fs::create_dir_all(&dir).expect("a temporary home can be written");
        Transcript {
            path: dir.join(format!("{id}.jsonl")),
            cwd: home.project().to_string_lossy().into_owned(),
            id: id.to_owned(),
        }
    }

    pub(crate) fn prompt(&self, text: &str) {
        self.append(json!({ "type": "user", "promptSource": "typed", "message": { "role": "user", "content": text } }));
    }

    pub(crate) fn tool(&self, call: &str, name: &str) {
        self.answer(json!([{ "type": "tool_use", "id": call, "name": name, "input": {} }]), "tool_use", call);
    }

    pub(crate) fn result(&self, call: &str) {
        let content = json!([{ "type": "tool_result", "tool_use_id": call, "content": "ok" }]);
        self.append(json!({ "type": "user", "message": { "role": "user", "content": content } }));
    }

    pub(crate) fn end(&self, text: &str) {
        self.answer(json!([{ "type": "text", "text": text }]), "end_turn", text);
    }

    /// Many calls and their results in one write.
    pub(crate) fn burst(&self, calls: usize) {
        let mut text = String::new();
        for n in 0..calls {
            let call = format!("b{n}");
            let content = json!([{ "type": "tool_use", "id": call, "name": "Bash", "input": {} }]);
            text.push_str(&self.line(answered(content, "tool_use", &call)));
            let content = json!([{ "type": "tool_result", "tool_use_id": call, "content": "ok" }]);
            let result = json!({ "type": "user", "message": { "role": "user", "content": content } });
            text.push_str(&self.line(result));
        }
        self.write(&text);
    }

    /// Makes the file's beginning unreadable, and lets the file look as it did.
    pub(crate) fn spoil(&self) {
        let modified =
            std::fs::metadata(&self.path).and_then(|m| m.modified()).expect("the transcript is there");
        let mut file = OpenOptions::new().write(true).open(&self.path).expect("the transcript opens");
        file.write_all(b"not json").expect("the transcript takes it");
        file.set_modified(modified).expect("its time can be set");
    }

    fn answer(&self, content: Value, stop: &str, id: &str) {
        self.append(answered(content, stop, id));
    }

    fn append(&self, record: Value) {
        self.write(&self.line(record));
    }

    fn line(&self, mut record: Value) -> String {
        record["timestamp"] = json!(clock::now());
        record["sessionId"] = json!(self.id);
        record["cwd"] = json!(self.cwd);
        record["gitBranch"] = json!("main");
        format!("{record}\n")
    }

    fn write(&self, text: &str) {
        let mut file =
            OpenOptions::new().append(true).create(true).open(&self.path).expect("the transcript opens");
        file.write_all(text.as_bytes()).expect("the transcript takes it");
    }
}

fn answered(content: Value, stop: &str, id: &str) -> Value {
    let message = json!({
        "id": format!("msg_{id}"), "role": "assistant", "model": "claude-sonnet-5-5",
        "content": content, "stop_reason": stop,
        "usage": { "input_tokens": 10, "output_tokens": 5 },
    });
    json!({ "type": "assistant", "message": message })
}
