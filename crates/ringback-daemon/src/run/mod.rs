//! Background runs: accepted calls, the books that go with them, and what is going on right now.
//!
//! [`Runs`] is the handle that the listeners, the tools and the dispatcher share. The ledger is the truth; what is
//! kept here in memory is a copy of it, or dies with the run it belongs to.

mod dispatch;
mod hooks;
mod main_session;
mod messages;
mod toolbox;
mod waiting;
mod worktrees;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ringback_model::budget::{self, Budget, Moment};
use ringback_model::flow::{self, OnNewer, Rule, Streak};
use ringback_model::hook_call::CallOutcome;
use ringback_model::inbound::bounds::Bounds;
use ringback_model::inbound::{Call, IdempotencyKey, Known, Refusal};
use ringback_model::money::Day;
use ringback_model::prompt::Reach;
use ringback_model::run::{Limits, Request, Run, RunId, RunState};
use ringback_model::updates::PendingUpdates;
use ringback_model::{SessionId, Timestamp};
use ringback_runs::Order;
use ringback_store::{Accept, Accepted, CallKey, Ledger, Save};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use dispatch::Dispatcher;
pub use main_session::Main;
pub(crate) use messages::Alive;
pub(crate) use worktrees::Removal;

use crate::config;
use crate::env::Env;
use crate::feed::Feed;
use crate::hook::declared::Settings;
use crate::lane::Outlets;
use crate::mcp::Tokens;
use crate::view::View;
use hooks::HookFiles;

/// How long a repeated key starts no second run.
const KEY_TTL: Duration = Duration::from_secs(72 * 3600);
/// When a caller may try again whose call found the queue full.
const FULL_QUEUE: Duration = Duration::from_secs(60);

/// The handle. Cheap to clone.
#[derive(Clone)]
pub struct Runs(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) config: config::Runs,
    /// The names that calls may use.
    known: Known,
    pub(crate) limits: budget::Limits,
    /// Bounds of sources.
    bounds: Bounds,
    /// What the hook files in force say.
    hook_files: RwLock<Arc<HookFiles>>,
    /// Failures of hooks, by slug. Held for look-ups only; changed under the books' lock.
    streaks: Mutex<BTreeMap<String, Streak>>,
    pub(crate) env: Env,
    /// Variables of declared hooks, which no agent sees; they only become more.
    withheld: RwLock<BTreeSet<String>>,
    pub(crate) view: View,
    pub(crate) feed: Feed,
    /// Where messages to the user are queued.
    pub(crate) outlets: Outlets,
    /// What runs are told about where that is.
    pub(crate) reach: Reach,
    pub(crate) tokens: Tokens,
    /// Address of the tools; `None` = the API does not listen, so that runs have none.
    pub(crate) mcp_url: Option<String>,
    /// `runs/` in the state directory.
    pub(crate) output: PathBuf,
    /// `worktrees/` in the state directory.
    worktrees: PathBuf,
    /// One hand at a time: what a run leaves is looked at and removed under this lock.
    tidying: tokio::sync::Mutex<()>,
    /// Directories that no run may read.
    pub(crate) denied: Vec<PathBuf>,
    /// Something was queued, or a slot is free. Losing one costs latency, never a run.
    pub(crate) wake: Notify,
    /// What is going on. Held for look-ups only, never across an await.
    active: Mutex<HashMap<RunId, Arc<Active>>>,
    /// The day's money as the journal has it, until a run takes or gives back some. Held for look-ups only.
    money: Mutex<waiting::Money>,
    /// Held from reading to the committed write, so that two tools never spend the same ping.
    books: tokio::sync::Mutex<Books>,
    /// Calls that may change queued runs share it, and are written together; whoever takes a run from the queue, or
    /// cancels one there, has it alone. Locked after the books.
    queue: tokio::sync::RwLock<()>,
    /// Sessions that are runs, with the run's source.
    sessions: RunSessions,
    now: fn() -> Moment,
    day: fn(Timestamp) -> Day,
}

/// Sessions that ringback started: the run, and its source. Cheap to clone.
pub type RunSessions = Arc<RwLock<HashMap<SessionId, (RunId, String)>>>;

/// A run that is going on.
pub(crate) struct Active {
    /// As it will be written next.
    pub(crate) run: Mutex<Run>,
    /// What it is told from outside.
    pub(crate) orders: watch::Sender<Order>,
    /// Pings sent, critical ones not counted.
    pub(crate) pings: std::sync::atomic::AtomicU32,
    /// The main session, for the question whether the user is busy.
    pub(crate) main: Option<SessionId>,
}

impl Active {
    pub(crate) fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is written as named values.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) budget: Option<Budget>,
    pub(crate) updates: BTreeMap<String, PendingUpdates>,
    /// What was shown to a main session whose hook has not said yet that it went out, by workspace.
    pub(crate) handed: BTreeMap<String, PendingUpdates>,
    /// Main sessions that the user set, by workspace.
    pub(crate) pinned: BTreeMap<String, SessionId>,
}

/// Names of values in the ledger.
const BUDGET: &str = "ping_budget";
const UPDATES: &str = "updates:";
const MAIN: &str = "main:";
const HOOK: &str = "hook:";

/// What [`Runs::open`] needs.
pub struct Setup {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// How agents are run.
    pub config: config::Runs,
    /// The ping budget's bounds.
    pub limits: budget::Limits,
    /// Bounds of single callers.
    pub bounds: Bounds,
    /// The environment, from which agents get their part.
    pub env: Env,
    /// The sessions.
    pub view: View,
    /// What the interfaces are told.
    pub feed: Feed,
    /// Where messages are queued.
    pub outlets: Outlets,
    /// What runs are told about where that is.
    pub reach: Reach,
    /// The tools' tokens.
    pub tokens: Tokens,
    /// Address of the tools.
    pub mcp_url: Option<String>,
    /// `runs/` in the state directory.
    pub output: PathBuf,
    /// `worktrees/` in the state directory.
    pub worktrees: PathBuf,
    /// Directories that no run may read.
    pub denied: Vec<PathBuf>,
    /// The time and the local date.
    pub now: fn() -> Moment,
    /// The local day of an instant.
    pub day: fn(Timestamp) -> Day,
}

impl Runs {
    /// Reads the books.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn open(setup: Setup) -> Result<Runs, ringback_store::Error> {
        let mut books = Books::default();
        if let Some(text) = setup.ledger.value(BUDGET).await? {
            books.budget = serde_json::from_str(&text).ok();
        }
        for (name, text) in setup.ledger.values(UPDATES).await? {
            if let (Some(workspace), Ok(updates)) = (name.strip_prefix(UPDATES), serde_json::from_str(&text))
            {
                books.updates.insert(workspace.to_owned(), updates);
            }
        }
        for (name, text) in setup.ledger.values(MAIN).await? {
            if let Some(workspace) = name.strip_prefix(MAIN) {
                books.pinned.insert(workspace.to_owned(), SessionId::new(text));
            }
        }
        let mut streaks = BTreeMap::new();
        for (name, text) in setup.ledger.values(HOOK).await? {
            if let (Some(slug), Ok(streak)) = (name.strip_prefix(HOOK), serde_json::from_str(&text)) {
                streaks.insert(slug.to_owned(), streak);
            }
        }
        let since = (setup.now)().at.minus(KEY_TTL);
        let known = setup.ledger.run_sessions(since).await?;
        let sessions = known.into_iter().map(|(session, run, source)| (session, (run, source))).collect();
        let known = Known {
            agents: setup.config.agents.keys().cloned().collect(),
            workspaces: setup.config.workspaces.keys().cloned().collect(),
        };
        Ok(Runs(Arc::new(Parts {
            ledger: setup.ledger,
            known,
            config: setup.config,
            limits: setup.limits,
            hook_files: RwLock::new(Arc::new(HookFiles::new(&setup.bounds, &Default::default()))),
            bounds: setup.bounds,
            streaks: Mutex::new(streaks),
            env: setup.env,
            withheld: RwLock::default(),
            view: setup.view,
            feed: setup.feed,
            outlets: setup.outlets,
            reach: setup.reach,
            tokens: setup.tokens,
            mcp_url: setup.mcp_url,
            output: setup.output,
            worktrees: setup.worktrees,
            tidying: tokio::sync::Mutex::default(),
            denied: setup.denied,
            wake: Notify::new(),
            active: Mutex::default(),
            money: Mutex::default(),
            books: tokio::sync::Mutex::new(books),
            queue: tokio::sync::RwLock::default(),
            sessions: Arc::new(RwLock::new(sessions)),
            now: setup.now,
            day: setup.day,
        })))
    }

    /// Puts a call into the journal: a run that will be carried out, whatever happens to this process.
    ///
    /// # Errors
    /// What the caller is told instead.
    pub async fn accept(
        &self,
        call: Call,
        route: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<RunId, Refusal> {
        let run = Run::queued(RunId(Uuid::new_v4()), self.request(call), (self.0.now)().at);
        Ok(self.enqueue(run, call_key(route, key), None).await?.0)
    }

    /// The same for a request of a declared hook, with what became of the call. `meeting`: what it is about, and how it
    /// meets earlier runs about the same.
    ///
    /// # Errors
    /// What the caller is told instead.
    pub(crate) async fn accept_of_hook(
        &self,
        request: Request,
        meeting: Option<(String, Rule)>,
        route: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<(RunId, CallOutcome), Refusal> {
        let (subject, rule) = meeting.unzip();
        let run = Run { subject, ..Run::queued(RunId(Uuid::new_v4()), request, (self.0.now)().at) };
        self.enqueue(run, call_key(route, key), rule).await
    }

    /// Puts a new run at the end of the queue, or what it brings into one that waits there; to the end, even if whoever
    /// asked hangs up meanwhile and is dropped: what is in the journal by then has to be acted on.
    async fn enqueue(
        &self,
        run: Run,
        key: Option<CallKey>,
        rule: Option<Rule>,
    ) -> Result<(RunId, CallOutcome), Refusal> {
        let this = self.clone();
        let queued = tokio::spawn(async move { this.enqueue_now(run, key, rule).await }).await;
        queued.unwrap_or_else(|error| {
            tracing::error!(%error, "a call could not be queued");
            Err(Refusal::StorageUnavailable)
        })
    }

    async fn enqueue_now(
        &self,
        run: Run,
        key: Option<CallKey>,
        rule: Option<Rule>,
    ) -> Result<(RunId, CallOutcome), Refusal> {
        let request = &run.request;
        let entry = self.0.config.agents.get(&request.agent);
        let program = entry.and_then(|e| e.command.first()).map_or("", String::as_str);
        if ringback_runs::find_program(program, self.0.env.get("PATH")).is_none() {
            return Err(Refusal::AgentNotAvailable(request.agent.clone()));
        }
        if let (Some(entry), Some(model)) = (entry, &request.model)
            && entry.model(model).is_err()
        {
            return Err(Refusal::InvalidValue { field: "model", value: model.clone() });
        }
        let unwritten = |error| {
            tracing::debug!(%error, "a call cannot be journaled");
            Refusal::StorageUnavailable
        };
        let paused = request.hook.as_deref().filter(|slug| self.is_paused(slug));
        // Counted one after the other; and a run that is to be ended is marked in the journal and here in one go.
        let is_cancelling = rule.is_some_and(|rule| rule.on_newer == OnNewer::Cancel);
        let books = if is_cancelling || paused.is_some() { Some(self.0.books.lock().await) } else { None };
        let queue = if rule.is_some() { Some(self.0.queue.read().await) } else { None };
        let has_room = match paused {
            Some(slug) => self.waiting_of(slug).await.map_err(unwritten)? < flow::MAX_WAITING,
            None => true,
        };
        let now = (self.0.now)().at;
        let spent = self.money_gone(request).await.map_err(unwritten)?;
        let id = run.id;
        let queued = run.clone();
        // A call that was accepted before is answered as it was then, whatever is left of the money or the queue.
        let max_queued = if spent.is_some() || !has_room { 0 } else { self.0.config.max_queued };
        let accept = Accept { run, key, now, key_ttl: KEY_TTL, max_queued, rule };
        let accepted = self.0.ledger.accept(accept).await.map_err(unwritten)?;
        if let Accepted::Replacing(older) = &accepted {
            for active in older.iter().filter_map(|older| self.active(*older)) {
                active.run().superseded_by = Some(id);
                active.orders.send_replace(Order::Cancel);
            }
        }
        drop((books, queue));
        match accepted {
            Accepted::New if rule.is_none() => {
                self.0.feed.push("run", || self.shown(&queued).to_string());
                self.0.wake.notify_one();
                Ok((id, CallOutcome::Accepted))
            }
            Accepted::New => {
                self.changed(&[id]).await;
                Ok((id, CallOutcome::Accepted))
            }
            Accepted::Replacing(mut older) => {
                older.push(id);
                self.changed(&older).await;
                Ok((id, CallOutcome::Accepted))
            }
            Accepted::Merged(first) => {
                self.changed(&[first]).await;
                Ok((first, CallOutcome::Merged))
            }
            Accepted::Repeated(first) => Ok((first, CallOutcome::Repeated)),
            Accepted::Full => Err(Refusal::TooManyRequests { wait: spent.unwrap_or(FULL_QUEUE) }),
        }
    }

    /// Tells what became of queued runs, and has the queue looked at.
    async fn changed(&self, runs: &[RunId]) {
        for id in runs {
            // Who listens may miss one; whoever asks is told what the journal says.
            if let Ok(Some(run)) = self.run(*id).await {
                self.0.feed.push("run", || self.shown(&run).to_string());
            }
        }
        self.0.wake.notify_one();
    }

    /// Queues the request of a run that has ended once more, under the limits that hold now.
    ///
    /// # Errors
    /// It has not ended, or a new call would be refused as well.
    pub async fn retry(&self, run: &Run) -> Result<RunId, NotRetried> {
        if !run.state.is_terminal() {
            return Err(NotRetried::NotEnded(run.state));
        }
        let mut again = run.again(RunId(Uuid::new_v4()), (self.0.now)().at);
        // A hook has its own.
        if again.request.hook.is_none() {
            again.request.limits = self.limits();
            again.request.allowed_tools = self.allowed_tools(&again.request.agent);
            again.request.retry = self.0.config.retry;
        }
        let (id, _) = self.enqueue(again, None, None).await.map_err(NotRetried::Refused)?;
        Ok(id)
    }

    /// The names that calls may use.
    pub fn known(&self) -> &Known {
        &self.0.known
    }

    fn request(&self, call: Call) -> Request {
        let config = &self.0.config;
        let agent = call.agent.unwrap_or_else(|| config.agent.clone());
        Request {
            allowed_tools: self.allowed_tools(&agent),
            limits: self.limits(),
            retry: config.retry,
            source: call.source,
            hook: None,
            agent,
            workspace: call.workspace.unwrap_or_else(|| config.workspace.clone()),
            message: call.message,
            isolated: call.isolated,
            model: call.model,
            thinking: call.thinking,
            allow_ping: call.allow_ping,
            update_main_session: call.update_main_session,
        }
    }

    /// What a run of a declared hook is to do.
    pub(crate) fn request_of_hook(&self, slug: &str, settings: &Settings, message: String) -> Request {
        let call = Call {
            message,
            source: slug.to_owned(),
            isolated: settings.isolated,
            model: settings.model.clone(),
            thinking: settings.thinking,
            allow_ping: settings.allow_ping,
            update_main_session: settings.update_main_session,
            agent: settings.agent.clone(),
            workspace: settings.workspace.clone(),
        };
        let request = self.request(call);
        Request {
            hook: Some(slug.to_owned()),
            allowed_tools: settings.allowed_tools.clone().unwrap_or(request.allowed_tools),
            retry: settings.retry.unwrap_or(request.retry),
            ..request
        }
    }

    /// Variables that no agent sees from now on, even if its list names them.
    fn withhold(&self, variables: &BTreeSet<String>) {
        let mut withheld = self.0.withheld.write().unwrap_or_else(PoisonError::into_inner);
        withheld.extend(variables.iter().cloned());
    }

    /// Variables that no agent sees.
    fn withheld(&self) -> BTreeSet<String> {
        let withheld = self.0.withheld.read().unwrap_or_else(PoisonError::into_inner);
        withheld.union(&self.0.config.never).cloned().collect()
    }

    fn allowed_tools(&self, agent: &str) -> Vec<String> {
        self.0.config.agents.get(agent).map(|a| a.allowed_tools.clone()).unwrap_or_default()
    }

    fn limits(&self) -> Limits {
        let config = &self.0.config;
        Limits {
            timeout_ms: u64::try_from(config.timeout.as_millis()).unwrap_or(u64::MAX),
            max_turns: config.max_turns,
            max_cost_usd: config.max_cost_usd,
        }
    }

    /// Sessions that are runs; shared with the recorder.
    pub fn sessions(&self) -> RunSessions {
        Arc::clone(&self.0.sessions)
    }

    /// Ends a run. `false` = there is none with this id that has not ended.
    ///
    /// # Errors
    /// The ledger cannot be read or written.
    pub async fn cancel(&self, id: RunId) -> Result<bool, ringback_store::Error> {
        if let Some(active) = self.active(id) {
            active.orders.send_replace(Order::Cancel);
            return Ok(true);
        }
        // The dispatcher takes queued runs under the same locks.
        let _books = self.0.books.lock().await;
        let _queue = self.0.queue.write().await;
        let Some(mut run) = self.0.ledger.run(id).await? else { return Ok(false) };
        let end = ringback_model::run::End::plain(RunState::Cancelled);
        if self.active(id).is_some() || run.finish(end, true, (self.0.now)().at).is_err() {
            return Ok(self.active(id).map(|a| a.orders.send_replace(Order::Cancel)).is_some());
        }
        self.0.feed.push("run", || self.shown(&run).to_string());
        self.0.ledger.save(Save { runs: vec![run], ..Save::default() }).await?;
        Ok(true)
    }

    pub(crate) fn active(&self, id: RunId) -> Option<Arc<Active>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn set_active(&self, id: RunId, active: Option<Arc<Active>>) {
        let mut all = self.0.active.lock().unwrap_or_else(PoisonError::into_inner);
        match active {
            Some(active) => all.insert(id, active),
            None => all.remove(&id),
        };
    }

    fn all_active(&self) -> Vec<Arc<Active>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// One run, as it is now.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run(&self, id: RunId) -> Result<Option<Run>, ringback_store::Error> {
        match self.active(id) {
            Some(active) => Ok(Some(active.run().clone())),
            None => self.0.ledger.run(id).await,
        }
    }

    /// The ledger, for listings.
    pub(crate) fn ledger(&self) -> &dyn Ledger {
        &*self.0.ledger
    }

    /// The directory of a run's output.
    pub fn output(&self, id: RunId) -> PathBuf {
        self.0.output.join(id.to_string())
    }

    /// A run as the interfaces show it.
    pub fn shown(&self, run: &Run) -> Value {
        let request = &run.request;
        json!({
            "id": run.id,
            "state": run.state,
            "source": request.source,
            "hook": request.hook,
            "agent": request.agent,
            "workspace": request.workspace,
            "isolated": request.isolated,
            "model": request.model,
            "message": ringback_model::session::cut(&request.message, 300),
            "session_id": run.session_id,
            "forked_from": run.forked_from,
            "created_at": run.created_at,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "cost_usd": run.cost_usd,
            "charged_usd": run.charged_usd,
            "tokens": run.tokens,
            "reported": run.reported,
            "pinged": run.pinged,
            "error": run.error,
            "timeout_ms": request.limits.timeout_ms,
            "max_turns": request.limits.max_turns,
            "max_cost_usd": request.limits.max_cost_usd,
            "retry_of": run.retry_of,
            "waiting": null,
            "subject": run.subject,
            "ready_at": run.ready_at,
            "merged": run.merged,
            "superseded_by": run.superseded_by,
            "worktree": run.worktree.as_ref().map(|w| json!({
                "path": w.path, "branch": w.branch, "kept": w.is_kept,
            })),
        })
    }

    /// Forgets runs that ended longer ago than `keep_for`, with their output, and output that belongs to no run.
    ///
    /// # Errors
    /// The ledger cannot be read or written; what was removed until then is gone.
    pub async fn prune(&self, keep_for: Duration) -> Result<(), ringback_store::Error> {
        let before = self.moment().at.minus(keep_for);
        while !self.0.ledger.prune_runs(before, ringback_store::PRUNED_AT_ONCE).await?.is_empty() {}
        let Ok(mut entries) = tokio::fs::read_dir(&self.0.output).await else { return Ok(()) };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok());
            // A name that is no run's is not ours to remove.
            let Some(id) = id else { continue };
            if self.0.ledger.run(id).await?.is_none()
                && let Err(error) = tokio::fs::remove_dir_all(entry.path()).await
            {
                tracing::warn!(run = %id, error = %error.kind(), "the output of an old run cannot be removed");
            }
        }
        Ok(())
    }

    pub(crate) fn moment(&self) -> Moment {
        (self.0.now)()
    }

    /// The run that a session is, and its source.
    pub(crate) fn run_of(&self, session: &SessionId) -> Option<(RunId, String)> {
        self.0.sessions.read().unwrap_or_else(PoisonError::into_inner).get(session).cloned()
    }

    fn is_run(&self, session: &SessionId) -> bool {
        self.run_of(session).is_some()
    }

    fn join(&self, session: SessionId, run: RunId, source: &str) {
        let mut sessions = self.0.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(session, (run, source.to_owned()));
    }
}

fn call_key(route: &str, key: Option<IdempotencyKey>) -> Option<CallKey> {
    key.map(|k| CallKey { scope: route.to_owned(), value: k.as_str().to_owned() })
}

/// Why a run is not queued once more.
#[derive(Debug, thiserror::Error)]
pub enum NotRetried {
    /// It waits or works.
    #[error("the run is {0}: only one that has ended can be retried")]
    NotEnded(RunState),
    /// A new call would be refused as well.
    #[error(transparent)]
    Refused(Refusal),
}

/// The local day of an instant, for the day's money.
pub(crate) fn local_day(at: Timestamp) -> Day {
    Day::of(at, &jiff::tz::TimeZone::system())
}

/// Milliseconds of a timestamp are all that the ledger's rules need of the clock; the local date comes with it.
pub(crate) fn local_date(at: Timestamp) -> jiff::civil::Date {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .map(|t| t.to_zoned(jiff::tz::TimeZone::system()).date())
        .unwrap_or_default()
}
