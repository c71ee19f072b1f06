//! Random settings in random layouts: what goes in comes out.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Change, Containers, HandOver, connect, disconnect, insert, remove, scan};

const COMMAND: &str = "'/opt/ring back/ringback' --config '/etc/r.toml' hand-over claude";

/// A JSON value that keeps the order of its keys, and keys given twice.
#[derive(Clone, Debug)]
enum Tree {
    Literal(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

#[derive(Clone, Debug)]
enum Layout {
    Compact,
    Spaced,
    Lines { unit: &'static str, line_break: &'static str },
    Random(Vec<&'static str>),
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(|s| json!(s).to_string()),
        any::<String>().prop_map(|s| json!(s).to_string()),
        Just(r#""\u0041\/\ud83d\ude00\n""#.to_owned()),
        Just(r#""hooks""#.to_owned()),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    let literal = prop_oneof![
        word(),
        any::<i64>().prop_map(|n| n.to_string()),
        prop::sample::select(vec!["null", "true", "false", "-0", "1.50e+3", "0.1", "7E2"])
            .prop_map(str::to_owned),
    ];
    literal.prop_map(Tree::Literal).prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Tree::Array),
            prop::collection::vec((word(), inner), 0..5).prop_map(Tree::Object),
        ]
    })
}

fn group() -> impl Strategy<Value = Tree> {
    let handler = word().prop_map(|command| {
        Tree::Object(vec![
            (r#""type""#.into(), Tree::Literal(r#""command""#.into())),
            (r#""command""#.into(), Tree::Literal(command)),
        ])
    });
    prop_oneof![
        3 => prop::collection::vec(handler, 0..3)
            .prop_map(|handlers| Tree::Object(vec![(r#""hooks""#.into(), Tree::Array(handlers))])),
        1 => tree(),
    ]
}

fn hooks() -> impl Strategy<Value = Option<Tree>> {
    let event = prop::option::of(prop::collection::vec(group(), 0..3).prop_map(Tree::Array));
    let others = prop::collection::vec((word(), tree()), 0..3);
    prop::option::of((others, event, any::<prop::sample::Index>()).prop_map(|(mut members, event, place)| {
        if let Some(event) = event {
            members.insert(place.index(members.len() + 1), (r#""UserPromptSubmit""#.into(), event));
        }
        Tree::Object(members)
    }))
}

fn settings() -> impl Strategy<Value = Tree> {
    let others = prop::collection::vec((word(), tree()), 0..5);
    (others, hooks(), any::<prop::sample::Index>()).prop_map(|(mut members, hooks, place)| {
        members.retain(|(key, _)| key != r#""hooks""#);
        if let Some(hooks) = hooks {
            members.insert(place.index(members.len() + 1), (r#""hooks""#.into(), hooks));
        }
        Tree::Object(members)
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    let blanks = prop::sample::select(vec!["", " ", "  ", "\t", "\n", "\r\n", "\r", "\n\n    ", "\n  "]);
    let lines =
        (prop::sample::select(vec!["  ", "    ", "\t", ""]), prop::sample::select(vec!["\n", "\r\n"]));
    prop_oneof![
        Just(Layout::Compact),
        Just(Layout::Spaced),
        lines.prop_map(|(unit, line_break)| Layout::Lines { unit, line_break }),
        prop::collection::vec(blanks, 1..12).prop_map(Layout::Random),
    ]
}

fn text() -> impl Strategy<Value = String> {
    let around =
        prop::sample::select(vec![("", ""), ("", "\n"), ("", "\r\n"), (" \n", "\n\n"), ("\u{feff}", "\n")]);
    (settings(), layout(), around).prop_map(|(tree, layout, (before, after))| {
        let mut writer = Writer { layout: &layout, out: before.to_owned(), turn: 0 };
        writer.tree(&tree, 0);
        writer.out + after
    })
}

struct Writer<'l> {
    layout: &'l Layout,
    out: String,
    turn: usize,
}

impl Writer<'_> {
    fn tree(&mut self, tree: &Tree, depth: usize) {
        match tree {
            Tree::Literal(text) => self.out.push_str(text),
            Tree::Array(items) => {
                self.container('[', ']', items.len(), depth, |w, i| w.tree(&items[i], depth + 1))
            }
            Tree::Object(members) => self.container('{', '}', members.len(), depth, |w, i| {
                w.out.push_str(&members[i].0);
                w.random();
                w.out.push(':');
                match w.layout {
                    Layout::Spaced | Layout::Lines { .. } => w.out.push(' '),
                    Layout::Compact | Layout::Random(_) => w.random(),
                }
                w.tree(&members[i].1, depth + 1);
            }),
        }
    }

    fn container(
        &mut self,
        open: char,
        close: char,
        len: usize,
        depth: usize,
        entry: impl Fn(&mut Self, usize),
    ) {
        self.out.push(open);
        for i in 0..len {
            if i > 0 {
                self.random();
                self.out.push(',');
            }
            match self.layout {
                Layout::Lines { .. } => self.line(depth + 1),
                Layout::Spaced if i > 0 => self.out.push(' '),
                _ => self.random(),
            }
            entry(self, i);
        }
        match self.layout {
            Layout::Lines { .. } if len > 0 => self.line(depth),
            _ => self.random(),
        }
        self.out.push(close);
    }

    fn line(&mut self, depth: usize) {
        if let Layout::Lines { unit, line_break } = self.layout {
            self.out.push_str(line_break);
            self.out.push_str(&unit.repeat(depth));
        }
    }

    fn random(&mut self) {
        if let Layout::Random(blanks) = self.layout {
            self.out.push_str(blanks[self.turn % blanks.len()]);
            self.turn += 1;
        }
    }
}

fn read(text: &str) -> Value {
    serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap()
}

/// The settings that the text says, with our entry in its place.
fn with_entry(text: &str) -> Value {
    let mut value = read(text);
    let entry = json!({"hooks": [{"type": "command", "command": COMMAND, "timeout": 1}]});
    let hooks = value.as_object_mut().unwrap().entry("hooks").or_insert_with(|| json!({}));
    let groups = hooks.as_object_mut().unwrap().entry("UserPromptSubmit").or_insert_with(|| json!([]));
    groups.as_array_mut().unwrap().push(entry);
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_entry_is_added_as_one_span_and_nothing_else_changes(text in text()) {
        let edited = insert(&text, COMMAND).unwrap();
        prop_assert_eq!(read(&edited.text), with_entry(&text));
        let Change::Inserted { span, containers } = edited.change else { panic!("nothing was there") };
        let mut without = edited.text.clone();
        without.replace_range(span, "");
        prop_assert_eq!(&without, &text);
        // Found again by its shape it leaves the same settings, if not the same blanks.
        prop_assert_eq!(read(&remove(&edited.text, containers).unwrap()), read(&text));
        prop_assert_eq!(insert(&edited.text, COMMAND).unwrap().change, Change::None);
    }

    #[test]
    fn a_moved_binary_changes_the_command_alone(text in text()) {
        let first = insert(&text, "'/old' hand-over claude").unwrap();
        let second = insert(&first.text, COMMAND).unwrap();
        let is_update = matches!(second.change, Change::Updated { .. });
        prop_assert!(is_update);
        prop_assert_eq!(second.text, insert(&text, COMMAND).unwrap().text);
    }

    #[test]
    fn settings_untouched_since_connect_are_byte_identical_after_disconnect(text in text()) {
        let home = tempfile::tempdir().unwrap();
        let (agent, state) = (home.path().join("agent"), home.path().join("state"));
        std::fs::create_dir(&agent).unwrap();
        let path = agent.join("settings.json");
        std::fs::write(&path, &text).unwrap();
        let command = HandOver { binary: "/opt/ring back/ringback".into(), config: Some("/etc/r.toml".into()) };
        connect(&agent, &state, &command, false).unwrap();
        prop_assert_eq!(read(&std::fs::read_to_string(&path).unwrap()), with_entry(&text));
        disconnect(&agent, &state, false).unwrap();
        prop_assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn an_edit_made_since_connect_stays_after_disconnect(text in text()) {
        let home = tempfile::tempdir().unwrap();
        let (agent, state) = (home.path().join("agent"), home.path().join("state"));
        std::fs::create_dir(&agent).unwrap();
        let path = agent.join("settings.json");
        std::fs::write(&path, &text).unwrap();
        let command = HandOver { binary: "/opt/ringback".into(), config: None };
        connect(&agent, &state, &command, false).unwrap();
        let connected = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, connected.replacen('{', r#"{"added since": [1, {}],"#, 1)).unwrap();
        disconnect(&agent, &state, false).unwrap();
        let mut expected = read(&text);
        expected["added since"] = json!([1, {}]);
        prop_assert_eq!(read(&std::fs::read_to_string(&path).unwrap()), expected);
    }

    #[test]
    fn what_is_json_is_decided_as_by_another_parser(
        text in text(),
        cut in any::<prop::sample::Index>(),
        add in prop::sample::select(vec!["", ",", "}", "]", "{", "\"", "\\", ":", "/*", "1", "-", ".", "e", "u", " ", "\u{1}"]),
        drop in 0..3_usize,
    ) {
        let mut chars: Vec<char> = text.trim_start_matches('\u{feff}').chars().collect();
        let at = cut.index(chars.len());
        chars.splice(at..(at + drop).min(chars.len()), add.chars());
        let text: String = chars.into_iter().collect();
        let other = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(scan::parse(&text).is_ok(), other, "{}", text);
    }

    #[test]
    fn no_text_is_too_strange_to_be_refused_or_read(text in any::<String>()) {
        let _ = insert(&text, COMMAND);
        let _ = remove(&text, Containers { hooks: true, event: true });
    }
}
