//! The sessions as the interfaces show them: a copy in memory of what the observer last saw.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ringback_model::{About, Activity, Agent, Reason, SessionId, Timestamp, resume};
use serde_json::{Value, json};
use tokio::sync::watch;

/// All sessions seen, with the user's names for them. Cheap to clone.
#[derive(Clone)]
pub struct View {
    // Held for copies only, never across an await.
    inner: Arc<RwLock<Inner>>,
    version: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Inner {
    sessions: HashMap<SessionId, Shown>,
    names: HashMap<SessionId, String>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What there is to show.
    pub about: Arc<About>,
    /// What it does.
    pub activity: Activity,
    /// Why.
    pub reason: Option<Reason>,
    /// Name of the tool whose call is open.
    pub current_tool: Option<String>,
}

/// Which sessions a listing wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only sessions in this directory or below; already made absolute.
    pub dir: Option<String>,
    /// Only this activity.
    pub activity: Option<Activity>,
    /// Only this agent.
    pub agent: Option<Agent>,
    /// Only sessions whose directory or name contains this, without regard to case.
    pub search: Option<String>,
}

impl Default for View {
    fn default() -> Self {
        View { inner: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
}

impl View {
    /// Replaces a session.
    pub fn put(&self, shown: Shown) {
        self.change(|inner| {
            inner.sessions.insert(shown.about.session_id.clone(), shown);
        });
    }

    /// Names a session; `None` takes the name away.
    pub fn name(&self, id: &SessionId, name: Option<String>) {
        self.change(|inner| {
            match name {
                Some(name) => inner.names.insert(id.clone(), name),
                None => inner.names.remove(id),
            };
        });
    }

    /// The user's name for a session.
    pub fn custom_name(&self, id: &SessionId) -> Option<String> {
        self.read(|inner| inner.names.get(id).cloned())
    }

    /// One session.
    pub fn get(&self, id: &SessionId) -> Option<Shown> {
        self.read(|inner| inner.sessions.get(id).cloned())
    }

    /// Every session that was seen.
    pub fn all(&self) -> Vec<Shown> {
        self.read(|inner| inner.sessions.values().cloned().collect())
    }

    /// Sessions active within `window` of `now` that pass the filter, newest activity first, as listed.
    pub fn list(&self, filter: &Filter, window: Duration, now: Timestamp) -> Vec<Value> {
        let oldest = now.minus(window);
        self.read(|inner| {
            let mut rows: Vec<(&Shown, Option<&String>)> = inner
                .sessions
                .values()
                .filter(|s| s.about.last_activity.is_some_and(|at| at >= oldest))
                .map(|s| (s, inner.names.get(&s.about.session_id)))
                .filter(|(s, name)| passes(filter, s, name.map(String::as_str)))
                .collect();
            rows.sort_by(|(a, _), (b, _)| {
                (b.about.last_activity, &a.about.session_id)
                    .cmp(&(a.about.last_activity, &b.about.session_id))
            });
            rows.into_iter().map(|(s, name)| row(s, name.map(String::as_str))).collect()
        })
    }

    /// Sessions within the window, and how many of them are active.
    pub fn counts(&self, window: Duration, now: Timestamp) -> (usize, usize) {
        let oldest = now.minus(window);
        self.read(|inner| {
            let inside =
                inner.sessions.values().filter(|s| s.about.last_activity.is_some_and(|at| at >= oldest));
            inside.fold((0, 0), |(all, active), s| (all + 1, active + usize::from(s.activity.is_active())))
        })
    }

    /// A number that rises with every change.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn change(&self, f: impl FnOnce(&mut Inner)) {
        f(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner));
        self.version.send_modify(|v| *v += 1);
    }

    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn passes(filter: &Filter, s: &Shown, name: Option<&str>) -> bool {
    let below = |dir: &str| {
        let (cwd, dir) = (s.about.cwd.trim_end_matches('/'), dir.trim_end_matches('/'));
        // The root's name is nothing but its slash, and only absolute paths are below it.
        (s.about.cwd.starts_with('/') || !dir.is_empty())
            && cwd.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let found = |text: &str| {
        let text = text.to_lowercase();
        [Some(s.about.cwd.as_str()), name, s.about.title.as_deref()]
            .into_iter()
            .flatten()
            .any(|field| field.to_lowercase().contains(&text))
    };
    filter.dir.as_deref().is_none_or(below)
        && filter.activity.is_none_or(|a| a == s.activity)
        && filter.agent.is_none_or(|a| a == s.about.agent)
        && filter.search.as_deref().is_none_or(found)
}

/// One row of `GET /api/sessions`.
pub fn row(s: &Shown, name: Option<&str>) -> Value {
    let about = &s.about;
    json!({
        "session_id": about.session_id,
        "agent": about.agent,
        "cwd": about.cwd,
        "short_name": about.short_name(),
        "custom_name": name,
        "activity": s.activity,
        "reason": s.reason,
        "is_active": s.activity.is_active(),
        "model": about.model,
        "git_branch": about.git_branch,
        "cost_usd": about.totals.cost_usd,
        "last_activity": about.last_activity,
        "total_messages": about.totals.user_messages + about.totals.assistant_messages,
    })
}

/// `GET /api/sessions/{id}` without its transitions.
pub fn detail(s: &Shown, name: Option<&str>) -> Value {
    let about = &s.about;
    let mut value = row(s, name);
    let more = json!({
        "title": about.title,
        "version": about.version,
        "is_worktree": about.is_worktree,
        "main_repo": about.main_repo,
        "input_tokens": about.totals.input_tokens,
        "output_tokens": about.totals.output_tokens,
        "cache_creation_tokens": about.totals.cache_creation_tokens,
        "cache_read_tokens": about.totals.cache_read_tokens,
        "user_messages": about.totals.user_messages,
        "assistant_messages": about.totals.assistant_messages,
        "current_tool": s.current_tool,
        "last_file_write": about.last_file_write,
        "last_file_write_at": about.last_file_write_at,
        "recent_tools": about.recent_tools,
        "recent_messages": about.recent_messages,
        "resume_command": resume::command(about.agent, about.session_id.as_str()),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_matches_at_a_path_boundary() {
        let view = View::default();
        let sessions =
            [("a", "/p/site"), ("b", "/p/site/sub"), ("c", "/p/site2"), ("d", "/p/site/"), ("e", "")];
        for (id, cwd) in sessions {
            let mut about = About::new(Agent::Claude, SessionId::new(id));
            about.cwd = cwd.to_owned();
            about.last_activity = Some(Timestamp::from_millis(1000));
            view.put(Shown {
                about: Arc::new(about),
                activity: Activity::Idle,
                reason: None,
                current_tool: None,
            });
        }
        let in_dir = |dir: &str, window| {
            let filter = Filter { dir: Some(dir.into()), ..Filter::default() };
            let rows = view.list(&filter, Duration::from_secs(window), Timestamp::from_millis(2000));
            rows.iter().map(|r| r["session_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().concat()
        };
        assert_eq!(in_dir("/p/site", 60), "abd");
        assert_eq!(in_dir("/p/site/", 60), "abd", "a slash at the end says nothing");
        assert_eq!(in_dir("/p/site/sub/", 60), "b");
        assert_eq!(in_dir("/", 60), "abcd", "everything that is absolute");
        assert_eq!(in_dir("/p/site", 0), "");
    }
}
