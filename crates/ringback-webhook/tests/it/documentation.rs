//! The user documentation says what the code does.

use std::fs;
use std::path::PathBuf;

use ringback_model::Event;

fn read(name: &str) -> String {
    let path = docs().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn docs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))
}

/// The code block between `<!-- NAME begin -->` and `<!-- NAME end -->`, without its fence.
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name} begin -->\n"), format!("<!-- {name} end -->"));
    let inner = text.split_once(&begin).unwrap().1.split_once(&end).unwrap().0;
    let inner = inner.trim_start().strip_prefix("```").unwrap().split_once('\n').unwrap().1;
    inner.strip_suffix("```\n").unwrap()
}

#[test]
fn the_python_snippet_is_the_tested_file() {
    assert_eq!(block(&read("outbound.md"), "verify_webhook.py"), read("verify_webhook.py"));
}

#[test]
fn the_example_payload_is_an_event_with_every_field_in_the_order_that_is_sent() {
    let page = read("outbound.md");
    let example = block(&page, "payload");
    let event: Event = serde_json::from_str(example).unwrap();
    let squeezed: String = example.lines().map(str::trim).collect::<String>().replace("\": ", "\":");
    let squeezed = squeezed.replace(", \"", ",\"").replace("{ ", "{").replace(" }", "}");
    assert_eq!(serde_json::to_string(&event).unwrap(), squeezed);
    let optional = [&event.reason.map(|r| r.to_string()), &event.host, &event.session_name, &event.model];
    assert!(optional.iter().all(|field| field.is_some()), "the example shows every field");
    assert!(event.api.is_some() && event.git_branch.is_some() && event.duration_ms.is_some());
    assert!(event.run_id.is_some() && event.source.is_some());
}

#[test]
fn every_header_of_a_delivery_is_documented() {
    use ringback_model::event::EventKind;
    use ringback_model::{Secret, Timestamp};
    use ringback_webhook::{Key, request::Post};

    let page = read("outbound.md").to_ascii_lowercase();
    let keys = [Key::new(&Secret::new("s"))];
    let event_id = "f47ac10b-58cc-4372-a567-0e02b2c3d479".parse().unwrap();
    let at = Timestamp::from_millis(0);
    let post = Post { keys: &keys, event_id, kind: EventKind::Ping, body: b"", attempt: 1, at };
    for name in post.headers().keys() {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn every_word_that_a_filter_takes_is_documented() {
    use ringback_model::{Activity, Agent, Reason};

    let page = read("outbound.md");
    let words = Activity::ALL.iter().map(|w| w.as_str());
    let words = words.chain(Reason::ALL.iter().map(|w| w.as_str()));
    for word in words.chain(Agent::ALL.iter().map(|w| w.as_str())) {
        assert!(page.contains(&format!("`{word}`")), "{word}");
    }
}
