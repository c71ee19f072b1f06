//! One hook file: from its text to a [`Hook`], or to everything that is wrong with it.
//!
//! Owns: the keys of the front matter, their defaults and checks. What single keys mean is with their modules. Nothing
//! of the file's values is repeated in an error, because a secret could stand anywhere.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use ringback_model::inbound::is_model;
use ringback_model::updates::UpdatePolicy;

use crate::config::node::{Node, Value};
use crate::config::section::{Problems, Section};
use crate::config::{self};
use crate::env::Env;

use super::auth::{self, Found, Places};
use super::expressions::{Condition, Mapped};
use super::fields::Fields;
use super::template::Template;
use super::{Hook, Settings, flow, yaml};

/// The longest body where the file says nothing, and at all.
const MAX_BODY: (u64, u64) = (1 << 20, 25 << 20);
/// Keys that are not there yet: to ignore them would be to promise what does not happen.
const NOT_YET: [&str; 1] = ["screen"];
/// The slug of the built-in route.
const RESERVED: &str = "agent";

/// What a file is read against.
pub(crate) struct Surroundings<'a> {
    /// The environment, where secrets are.
    pub(crate) env: &'a Env,
    /// The file's directory.
    pub(crate) directory: &'a Path,
    /// `[inbound] allow_unsigned`.
    pub(crate) allow_unsigned: bool,
    /// Agents and workspaces that a file may name.
    pub(crate) runs: &'a config::Runs,
}

/// A file that is no hook.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Everything that is wrong.
    pub(crate) errors: Vec<String>,
    /// Variables that it names all the same: they hold secrets.
    pub(crate) variables: BTreeSet<String>,
}

/// Reads a file. `name` is the file's own, `text` all of it.
pub(crate) fn parse(name: &str, text: &str, around: &Surroundings<'_>) -> Result<Hook, Broken> {
    let broken = |error: String| Broken { errors: vec![error], variables: BTreeSet::new() };
    let (front, template) = yaml::split(text).map_err(broken)?;
    let mut node = yaml::read(front).map_err(broken)?;
    snake_case(&mut node).map_err(broken)?;
    if let Some(coalesce) = entry_mut(&mut node, "coalesce") {
        snake_case(coalesce).map_err(broken)?;
    }
    let problems = RefCell::new(Problems::default());
    let mut found = Found::default();
    let hook = read(name, &node, template, around, &problems, &mut found);
    let Problems { errors, warnings, .. } = problems.into_inner();
    match hook {
        Some(hook) if errors.is_empty() => {
            Ok(Hook { warnings, fingerprint: flow::hash(text.as_bytes()), ..hook })
        }
        _ => Err(Broken { errors, variables: found.variables }),
    }
}

fn entry_mut<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Node> {
    let Value::Table(entries) = &mut node.value else { return None };
    entries.iter_mut().find(|(k, _)| k == key).map(|(_, node)| node)
}

/// Keys are written with - or with _.
fn snake_case(node: &mut Node) -> Result<(), String> {
    let Value::Table(entries) = &mut node.value else { return Ok(()) };
    let mut seen = BTreeSet::new();
    for (key, _) in entries {
        *key = key.replace('-', "_");
        if !seen.insert(key.clone()) {
            let key = ringback_model::escape::escaped_and_cut(key, 64);
            return Err(format!("{key} is there twice, once with - and once with _"));
        }
    }
    Ok(())
}

fn read(
    name: &str,
    node: &Node,
    template: &str,
    around: &Surroundings<'_>,
    problems: &RefCell<Problems>,
    found: &mut Found,
) -> Option<Hook> {
    let s = Section::new("", node, problems);
    let entry = |key: &str| match &node.value {
        Value::Table(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, node)| node),
        _ => None,
    };
    let places =
        Places { env: around.env, directory: around.directory, allow_unsigned: around.allow_unsigned };
    // Asked for, so that it is known; the free-form keys are read by their modules.
    let free = |key: &'static str| if s.has(key) { entry(key) } else { None };
    for key in NOT_YET {
        if s.has(key) {
            s.error(key, "this version does not have this key yet; remove it");
        }
    }
    let auth = told(&s, "auth", auth::read(free("auth"), &places, found));
    let slug = slug(&s, name);
    let fields = match free("fields") {
        Some(node) => told(&s, "fields", declared(node)),
        None => Some(Fields::none()),
    };
    let map = match free("map") {
        Some(node) => told(&s, "map", mapped(node)).map(Some),
        None => Some(None),
    };
    let when = match s.text("when") {
        Some(text) => told(&s, "when", Condition::new(&text)).map(Some),
        None => Some(None),
    };
    let is_field = |name: &str| fields.as_ref().is_some_and(|f| f.is_declared(name));
    let parsed = Template::parse(template, is_field);
    let template = parsed.map_err(|error| problems.borrow_mut().errors.push(error)).ok();
    let max_body = s.size("max_body").unwrap_or(MAX_BODY.0);
    if max_body == 0 || max_body > MAX_BODY.1 {
        s.error("max_body", "expected a size from 1 B to 25 MiB");
    }
    let dedupes_by_body = match s.text("dedupe").as_deref() {
        None => false,
        Some("body") => true,
        Some(_) => {
            s.error("dedupe", "expected body");
            false
        }
    };
    let public_url = s.text("public_url");
    if public_url.as_deref().is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        s.error(
            "public_url",
            "expected the hook's URL as its sender knows it, such as https://hooks.example.com/hook/sms",
        );
    }
    let run = settings(&s, around);
    let flow = flow::read(&s);
    if let (Some(fields), Some(template)) = (&fields, &template) {
        for name in template.fields().into_iter().filter(|name| !fields.is_declared(name)) {
            problems.borrow_mut().warnings.push(format!(
                "the template names {{{{{name}}}}}, which fields does not declare: every call will be refused"
            ));
        }
    }
    s.finish();
    Some(Hook {
        slug: slug?,
        file: name.to_owned(),
        auth: auth?,
        public_url,
        max_body: usize::try_from(max_body).ok()?,
        dedupes_by_body,
        run,
        flow,
        fingerprint: String::new(),
        when: when?,
        map: map?,
        fields: fields?,
        template: template?,
        variables: found.variables.clone(),
        secret_files: found.files.clone(),
        unset: found.unset.clone(),
        warnings: Vec::new(),
    })
}

/// Notes what is wrong with a key.
fn told<T>(s: &Section<'_>, key: &str, read: Result<T, String>) -> Option<T> {
    read.map_err(|error| s.error(key, &error)).ok()
}

fn slug(s: &Section<'_>, name: &str) -> Option<String> {
    let id = s.text_or_number("id");
    let (slug, whose) = match &id {
        Some(id) => (id.as_str(), "id"),
        None => (name.strip_suffix(".md").unwrap_or(name), "the file's name without .md"),
    };
    if !is_slug(slug) {
        s.error("id", &format!("{whose} must be 1 to 64 characters of a-z 0-9 - and not begin with -"));
        return None;
    }
    if slug == RESERVED {
        s.error("id", "agent is reserved for POST /hook/agent; choose another id");
        return None;
    }
    Some(slug.to_owned())
}

/// Whether a hook may be called so: 1 to 64 characters of a-z 0-9 -, not beginning with -. "agent" is reserved all the
/// same.
pub fn is_slug(slug: &str) -> bool {
    (1..=64).contains(&slug.len())
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !slug.starts_with('-')
}

/// `fields`: the names in the order of the file, and the schema.
fn declared(node: &Node) -> Result<Fields, String> {
    let mut names = Vec::new();
    if let Value::Table(entries) = &node.value
        && let Some((_, Node { value: Value::Table(properties), .. })) =
            entries.iter().find(|(key, _)| key == "properties")
    {
        names.extend(properties.iter().map(|(name, _)| name.clone()));
    }
    Fields::new(names, yaml::to_json(node))
}

fn mapped(node: &Node) -> Result<Vec<(String, Mapped)>, String> {
    let Value::Table(entries) = &node.value else {
        return Err(format!("expected a mapping of fields to templates, found {}", node.value.kind()));
    };
    entries.iter().map(|(name, node)| Ok((name.clone(), Mapped::new(node)?))).collect()
}

/// How runs of the hook go.
fn settings(s: &Section<'_>, around: &Surroundings<'_>) -> Settings {
    let flag = |key, default| s.flag(key).unwrap_or(default);
    let agent = s.text("agent");
    let entry = around.runs.agents.get(agent.as_ref().unwrap_or(&around.runs.agent));
    if entry.is_none() {
        s.error("agent", "no agent of this name is configured below [runs.agents]");
    }
    let workspace = s.text("workspace");
    if workspace.as_ref().is_some_and(|name| !around.runs.workspaces.contains_key(name)) {
        s.error("workspace", "no workspace of this name is configured below [workspaces]");
    }
    let model = s.text("model");
    if let Some(model) = &model {
        if !is_model(model) {
            s.error("model", "expected haiku, sonnet, opus or the id of a model");
        } else if entry.is_some_and(|entry| entry.model(model).is_err()) {
            s.error("model", "this alias means nothing to the agent; add it to [runs.agents.NAME.models]");
        }
    }
    let policy = s.text("update_main_session").and_then(|word| {
        let policy = UpdatePolicy::ALL.iter().copied().find(|policy| policy.as_str() == word);
        if policy.is_none() {
            s.error("update_main_session", "expected always, on_ping, freely or blocked");
        }
        policy
    });
    Settings {
        isolated: flag("isolated", false),
        thinking: flag("thinking", true),
        allow_ping: flag("allow_ping", true),
        update_main_session: policy.unwrap_or_default(),
        allowed_tools: s.texts("allowed_tools"),
        retry: s.flag("retry"),
        agent,
        workspace,
        model,
    }
}
