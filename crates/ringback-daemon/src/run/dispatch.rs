//! The dispatcher: takes runs from the queue, oldest first, carries each out, and writes down how it ended.
//!
//! A run is journaled as working before its process starts, so that after a crash the next start knows what to look
//! for: what is left of it is ended, and the run counts as interrupted.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringback_model::flow::{self, Streak};
use ringback_model::queue::Wait;
use ringback_model::run::{End, Process, Run, RunId, RunState, Tokens};
use ringback_model::{Agent, SessionId, Timestamp, prompt};
use ringback_runs::{Adapter, Environment, Leader, Order, Outcome, Progress, Session, Spec, TurnResult};
use ringback_store::{Accept, CallKey, Save, Told};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::worktrees::denied_around;
use super::{Active, HOOK, KEY_TTL, Main, Runs};
use crate::config::AgentEntry;
use crate::mcp::ToolSet;

/// How long a ledger that fails is left alone.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);
/// The longest that the dispatcher sleeps towards an instant.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Queued runs that are read at first; more only when these have to wait.
const READ_AT_FIRST: usize = 64;
/// From TERM to KILL for what a crash left behind.
const RECOVER_KILL_AFTER: Duration = Duration::from_secs(5);
/// What a run is told that owes a report.
const OWED: &str = "Before you end: this run must report to the main session. Call report_updates once, with what \
                    you did and found. Then end your turn.";

/// The loop.
pub struct Dispatcher(pub Runs);

impl Dispatcher {
    /// Ends what a crash left, then carries out what is queued until `stop` turns true; runs that are going on then
    /// are told to end, and are waited for.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let runs = self.0;
        tokio::select! {
            () = runs.recover() => {}
            // What is not written yet is looked for again by the next start.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        let slots = runs.0.config.max_concurrent;
        let mut going: JoinSet<()> = JoinSet::new();
        while !*stop.borrow() {
            let mut pause = None;
            if let Err(error) = runs.resume_edited().await {
                tracing::debug!(%error, "a hook whose file was edited cannot go on yet");
                pause = Some(LEDGER_PAUSE);
            }
            if going.len() < slots {
                match runs.take_queued(slots - going.len()).await {
                    Ok(taken) => {
                        for active in taken.runs {
                            let runs = runs.clone();
                            going.spawn(async move { runs.carry_out(active).await });
                        }
                        // The wall clock may jump meanwhile, and the machine may sleep.
                        let again = taken.again_at.map(|at| at.since(runs.moment().at).min(LONGEST_PAUSE));
                        pause = pause.into_iter().chain(again).min();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "cannot take runs from the queue");
                        pause = Some(LEDGER_PAUSE);
                    }
                }
            }
            tokio::select! {
                Some(_) = going.join_next() => {}
                () = runs.0.wake.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                _ = stop.changed() => {}
            }
        }
        for active in runs.all_active() {
            active.orders.send_replace(Order::Interrupt);
        }
        while going.join_next().await.is_some() {}
    }
}

/// What came of a look at the queue.
#[derive(Default)]
struct Taken {
    runs: Vec<Arc<Active>>,
    /// When to look again, whatever happens until then; `None` = when something is queued or ends.
    again_at: Option<Timestamp>,
}

impl Runs {
    /// Ends the processes of runs that were going on when ringback was killed.
    async fn recover(&self) {
        let left = loop {
            match self.0.ledger.unfinished().await {
                Ok(left) => break left,
                Err(error) => tracing::debug!(%error, "cannot look for runs that a crash left behind"),
            }
            tokio::time::sleep(LEDGER_PAUSE).await;
        };
        let mut ending = JoinSet::new();
        for run in left {
            let this = self.clone();
            ending.spawn(async move {
                let leader = leader_of(&run);
                let ended = ringback_runs::recover(run.id.0, leader, RECOVER_KILL_AFTER).await;
                tracing::info!(run = %run.id, processes = ended, "a run was interrupted by the end of ringback");
                if run.request.retry && run.superseded_by.is_none() {
                    this.queue_again(&run).await;
                }
                let mut run = run;
                run.worktree = this.settle_worktree(None, &run).await;
                let end = End {
                    state: RunState::Interrupted,
                    error: Some("ringback stopped while it ran".to_owned()),
                    cost_usd: None,
                    tokens: None,
                };
                this.finish(run, end).await;
            });
        }
        while ending.join_next().await.is_some() {}
    }

    /// Queues an interrupted run again, once: before its end is written, and under a key of its own, so that another
    /// crash at any moment makes neither none nor two of it. Waits for a ledger that fails, as the end does.
    async fn queue_again(&self, run: &Run) {
        let now = self.moment().at;
        let again = run.again(RunId(Uuid::new_v4()), now);
        loop {
            let key = CallKey { scope: "interrupted".to_owned(), value: run.id.to_string() };
            let accept = Accept {
                run: again.clone(),
                key: Some(key),
                now,
                key_ttl: KEY_TTL,
                max_queued: u64::MAX,
                rule: None,
            };
            match self.0.ledger.accept(accept).await {
                Ok(_) | Err(ringback_store::Error::Closed) => return,
                Err(error) => tracing::debug!(%error, "an interrupted run cannot be queued again yet"),
            }
            tokio::time::sleep(LEDGER_PAUSE).await;
        }
    }

    /// Takes up to `free` runs from the queue: each is journaled as working and known as active.
    ///
    /// # Errors
    /// The ledger fails before any is taken. What was taken before it fails is given: the journal calls it working, so
    /// that nobody would come upon it again.
    async fn take_queued(&self, free: usize) -> Result<Taken, ringback_store::Error> {
        let mut taken = Taken::default();
        match self.take_more(&mut taken, free).await {
            Ok(()) => Ok(taken),
            Err(error) if taken.runs.is_empty() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "cannot take more runs from the queue");
                taken.again_at = Some(self.moment().at.plus(LEDGER_PAUSE));
                Ok(taken)
            }
        }
    }

    async fn take_more(&self, taken: &mut Taken, free: usize) -> Result<(), ringback_store::Error> {
        // Good enough to see what has to wait; what may start is judged again, under the lock.
        let mut situation = self.situation().await?;
        let (mut seen, mut limit) = (HashSet::new(), free.max(READ_AT_FIRST));
        loop {
            let queue = self.0.ledger.queued(limit).await?;
            let is_whole = queue.len() < limit;
            for run in queue {
                if taken.runs.len() == free {
                    return Ok(());
                }
                if !seen.insert(run.id) {
                    continue;
                }
                match situation.admit(&run, self.is_metered(&run.request)) {
                    Ok(_) => taken.runs.extend(self.take(run).await?),
                    Err(Wait::DailyCostUsd { until, .. } | Wait::Quiet { until }) => {
                        taken.again_at = Some(taken.again_at.map_or(until, |at| at.min(until)));
                    }
                    Err(Wait::Concurrency { .. } | Wait::Slot | Wait::OlderRun | Wait::HookPaused { .. }) => {
                    }
                }
            }
            if is_whole {
                return Ok(());
            }
            limit *= 4;
        }
    }

    /// Takes one run, unless something came between.
    async fn take(&self, run: Run) -> Result<Option<Arc<Active>>, ringback_store::Error> {
        let entry = self.0.config.agents.get(&run.request.agent);
        let adapter = entry.map(|a| a.adapter);
        let agent = entry.and_then(|entry| agent_of(&run.request.agent, entry));
        let main = self.main_session(&run.request.workspace, agent).await;
        let fork = fork_of(&run, agent, main.as_ref()).ok();
        // A cancel looks at the queue and at the active runs under this lock, and so does a run's end, which gives
        // back what it had reserved.
        let _books = self.0.books.lock().await;
        // A call may be merged into it until then.
        let _queue = self.0.queue.write().await;
        let Some(mut run) = self.0.ledger.run(run.id).await? else { return Ok(None) };
        let admitted = self.situation().await?.admit(&run, self.is_metered(&run.request));
        let Ok(reserved) = admitted else { return Ok(None) };
        if run.start(fork, reserved, self.moment().at).is_err() {
            return Ok(None);
        }
        if adapter == Some(Adapter::Claude) {
            // Chosen beforehand, so that the run and the session that the observer sees are one from the start.
            let session = SessionId::new(Uuid::new_v4().to_string());
            self.join(session.clone(), run.id, &run.request.source);
            run.session_id = Some(session);
        }
        self.0.ledger.save(Save { runs: vec![run.clone()], ..Save::default() }).await?;
        self.money_changed();
        self.0.feed.push("run", || self.shown(&run).to_string());
        let active = Arc::new(Active {
            orders: watch::Sender::new(Order::Proceed),
            pings: AtomicU32::new(0),
            main: main.map(|m| m.id),
            run: Mutex::new(run.clone()),
        });
        self.set_active(run.id, Some(Arc::clone(&active)));
        Ok(Some(active))
    }

    /// One run, from its start to its end in the journal.
    async fn carry_out(&self, active: Arc<Active>) {
        let id = active.run().id;
        let end = match self.spec(&active).await {
            Ok(spec) => self.execute(&active, &spec).await,
            Err(why) => failed(why),
        };
        self.0.tokens.revoke(id);
        let run = active.run().clone();
        self.settle_worktree(Some(&active), &run).await;
        let run = active.run().clone();
        self.finish(run, end).await;
        self.0.wake.notify_one();
    }

    async fn execute(&self, active: &Active, spec: &Spec) -> End {
        let running = match ringback_runs::start(spec) {
            Ok(running) => running,
            Err(error) => return failed(error.to_string()),
        };
        let leader = running.leader();
        {
            let _books = self.0.books.lock().await;
            let run = {
                let mut run = active.run();
                run.process = u32::try_from(leader.pid).ok().map(|pid| Process {
                    pid,
                    pgid: pid,
                    started: leader.started.map(|t| t.to_string()).unwrap_or_default(),
                });
                run.clone()
            };
            if let Err(error) = self.0.ledger.save(Save { runs: vec![run], ..Save::default() }).await {
                // Its variable still tells a later start which processes are its own.
                tracing::warn!(%error, "the process of a run cannot be written down");
            }
        }
        let mut host = Host { runs: self.clone(), active, is_asked: false };
        let outcome = running.wait(active.orders.subscribe(), &mut host).await;
        end_of(outcome)
    }

    /// Everything that the runner needs, or why the run cannot start.
    async fn spec(&self, active: &Active) -> Result<Spec, String> {
        let run = active.run().clone();
        let request = &run.request;
        let entry = self.0.config.agents.get(&request.agent);
        let entry = entry.ok_or_else(|| format!("no agent is called {} any more", request.agent))?;
        let workspace = self.0.config.workspaces.get(&request.workspace);
        let workspace =
            workspace.ok_or_else(|| format!("no workspace is called {} any more", request.workspace))?;
        let agent = agent_of(&request.agent, entry);
        let main = self.main_session(&request.workspace, agent).await;
        let start = match (request.isolated, fork_of(&run, agent, main.as_ref())) {
            (true, _) => prompt::Start::Isolated,
            (false, Ok(_)) if run.forked_from.is_some() => prompt::Start::Fork,
            (false, Ok(_)) => prompt::Start::WithoutHistory(prompt::NoHistory::NoMainSession),
            (false, Err(why)) => prompt::Start::WithoutHistory(why),
        };
        let main_dir = main.as_ref().and_then(|m| m.shown.as_ref()).map(|s| s.about.cwd.clone());
        let cwd = match (&run.forked_from, main_dir) {
            (Some(_), Some(dir)) if !dir.is_empty() => dir.into(),
            _ => self.make_worktree(active, workspace).await?.unwrap_or_else(|| workspace.path.clone()),
        };
        let in_worktree = active.run().worktree.as_ref().map(|w| PathBuf::from(&w.path));
        let tools = ToolSet { ping: request.allow_ping, report: request.update_main_session.may_report() };
        let mcp = match &self.0.mcp_url {
            Some(url) => {
                let token = self.0.tokens.issue(run.id, tools).map_err(|e| e.to_string())?;
                Some(ringback_runs::Mcp { url: url.clone(), token })
            }
            None => None,
        };
        let updates = self.updates(&request.workspace).await;
        let level = self.level().await;
        let restrictions = restrictions(entry.adapter, &request.allowed_tools);
        let facts = prompt::PromptFacts {
            source: &request.source,
            message: &request.message,
            allow_ping: request.allow_ping && mcp.is_some(),
            update_main_session: request.update_main_session,
            busy: main.as_ref().is_some_and(Main::is_busy),
            budget: &level,
            start,
            allowed_tools: restrictions.as_deref(),
            reach: self.0.reach,
            updates: &updates,
            merged: run.merged,
            now: self.moment().at,
        };
        let cannot = prompt::Start::WithoutHistory(prompt::NoHistory::CannotFork);
        let without_history = prompt::prompt(&prompt::PromptFacts { start: cannot, ..facts });
        Ok(Spec {
            run_id: run.id.0,
            adapter: entry.adapter,
            command: entry.command.clone(),
            cwd,
            prompt: prompt::prompt(&facts),
            prompt_without_history: run.forked_from.is_some().then_some(without_history),
            env: Environment::select(&self.0.env.all(), &entry.env, &self.withheld()),
            mcp,
            limits: ringback_runs::Limits::new(request.limits.timeout()),
            output_dir: self.output(run.id),
            session: session_of(&run),
            model: request.model.as_deref().map(|m| entry.model(m)).transpose()?,
            thinking: request.thinking,
            allowed_tools: request.allowed_tools.clone(),
            denied_dirs: match &in_worktree {
                Some(own) => denied_around(own, &self.0.denied),
                None => self.0.denied.clone(),
            },
            max_turns: Some(request.limits.max_turns).filter(|n| *n > 0),
            // What it has reserved, which may be less than it was to have, or a bound where it was to have none.
            max_cost_usd: run.charged_usd.filter(|c| *c > 0.0),
        })
    }

    /// Writes a run's end down, and tells the user where there is something to tell. Tries until the ledger takes
    /// it: the run holds its slot meanwhile.
    async fn finish(&self, run: Run, end: End) {
        loop {
            // The tools write under the same lock: what they noted last is in the active run.
            let books = self.0.books.lock().await;
            let mut run = match self.active(run.id) {
                Some(active) => active.run().clone(),
                None => self.left_by_crash(&run).await,
            };
            if run.finish(end.clone(), self.is_metered(&run.request), self.moment().at).is_err() {
                // It has ended already, by another hand.
                self.set_active(run.id, None);
                return;
            }
            let text = run.told_at_end();
            let streak = self.streak_after(&books, &run);
            let paused = streak.as_ref().filter(|(_, _, is_paused)| *is_paused);
            let texts = text.into_iter().chain(paused.map(|(slug, _, _)| flow::told_of_pause(slug)));
            let told: Vec<Told> = texts.map(|text| self.message(Some(&run), &text, None, false)).collect();
            let has_told = !told.is_empty();
            let value = |(slug, streak, _): &(String, Streak, bool)| {
                let is_over = *streak == Streak::default();
                (format!("{HOOK}{slug}"), serde_json::to_string(streak).ok().filter(|_| !is_over))
            };
            let values = streak.iter().map(value).collect();
            match self.0.ledger.save(Save { runs: vec![run.clone()], values, told }).await {
                Ok(()) | Err(ringback_store::Error::Closed) => {
                    self.money_changed();
                    if let Some((slug, streak, _)) = streak {
                        self.set_streak(&books, &slug, streak);
                    }
                    self.set_active(run.id, None);
                    if has_told {
                        self.wake_outlets();
                    }
                    self.0.feed.push("run", || self.shown(&run).to_string());
                    return;
                }
                Err(error) => {
                    tracing::debug!(run = %run.id, %error, "the end of a run cannot be written down")
                }
            }
            drop(books);
            tokio::time::sleep(LEDGER_PAUSE).await;
        }
    }

    /// A run that a crash left, with what was noted in it since it was found.
    async fn left_by_crash(&self, found: &Run) -> Run {
        let stored = self.0.ledger.run(found.id).await.ok().flatten();
        Run { superseded_by: stored.and_then(|run| run.superseded_by), ..found.clone() }
    }
}

/// What the runner tells and asks while a run goes on.
struct Host<'a> {
    runs: Runs,
    active: &'a Active,
    is_asked: bool,
}

impl ringback_runs::Host for Host<'_> {
    fn learn(&mut self, fact: &Progress) {
        let mut run = self.active.run();
        match fact {
            Progress::Session(id) if run.session_id.as_ref() != Some(id) => {
                run.session_id = Some(id.clone());
                self.runs.join(id.clone(), run.id, &run.request.source);
            }
            Progress::WithoutHistory => run.forked_from = None,
            Progress::Session(_) | Progress::Answer(_) | Progress::Turn(_) => {}
        }
    }

    fn another_turn(&mut self, _turn: &TurnResult) -> Option<String> {
        let owes = self.active.run().owes_report() && self.runs.0.mcp_url.is_some();
        (owes && !std::mem::replace(&mut self.is_asked, true)).then(|| OWED.to_owned())
    }
}

/// The session that a run forks, or why it has no history.
fn fork_of(run: &Run, agent: Option<Agent>, main: Option<&Main>) -> Result<SessionId, prompt::NoHistory> {
    let agent = agent.filter(|_| !run.request.isolated).ok_or(prompt::NoHistory::CannotFork)?;
    let main = main.ok_or(prompt::NoHistory::NoMainSession)?;
    // One that was pinned and never seen may be anybody's.
    if main.agent().is_some_and(|of| of != agent) {
        return Err(prompt::NoHistory::OtherAgent);
    }
    Ok(main.id.clone())
}

/// The agent whose sessions a configured agent forks. Over the protocol any agent may speak: it is known by the name
/// that the user gave it, or by that of its program.
fn agent_of(name: &str, entry: &AgentEntry) -> Option<Agent> {
    match entry.adapter {
        Adapter::Claude => Some(Agent::Claude),
        Adapter::Codex => Some(Agent::Codex),
        Adapter::Acp => {
            let program = entry.command.first().and_then(|p| std::path::Path::new(p).file_stem()?.to_str());
            name.parse().ok().or_else(|| program?.parse().ok())
        }
        Adapter::Command => None,
    }
}

/// The tools of its own that a run is told it has; `None` = the adapter cannot restrict them.
fn restrictions(adapter: Adapter, allowed: &[String]) -> Option<Vec<String>> {
    match adapter {
        Adapter::Command => None,
        Adapter::Claude | Adapter::Acp => Some(allowed.to_vec()),
        Adapter::Codex => {
            let may_write = ringback_runs::codex_may_write(allowed);
            let commands = if may_write {
                "shell commands and edits that write below the working directory"
            } else {
                "shell commands that write nothing"
            };
            Some(vec![commands.to_owned()])
        }
    }
}

fn session_of(run: &Run) -> Session {
    let id = run.session_id.as_ref().and_then(|id| id.as_str().parse::<Uuid>().ok());
    match (id, &run.forked_from) {
        (id, Some(of)) => Session::Fork { of: of.clone(), id },
        (Some(id), None) => Session::New { id },
        (None, None) => Session::Unnamed,
    }
}

fn leader_of(run: &Run) -> Leader {
    let process = run.process.as_ref();
    Leader {
        pid: process.and_then(|p| i32::try_from(p.pid).ok()).unwrap_or(0),
        started: process.and_then(|p| p.started.parse().ok()),
    }
}

/// It never ran, and so it cost nothing.
fn failed(why: String) -> End {
    End { state: RunState::Failed, error: Some(why), cost_usd: Some(0.0), tokens: None }
}

fn end_of(outcome: Outcome) -> End {
    let (state, error) = match outcome.end {
        ringback_runs::End::Completed => (RunState::Completed, None),
        ringback_runs::End::Failed(why) => (RunState::Failed, Some(why)),
        ringback_runs::End::TimedOut => (RunState::TimedOut, None),
        ringback_runs::End::Cancelled => (RunState::Cancelled, None),
        ringback_runs::End::Interrupted => (RunState::Interrupted, Some("ringback stopped".to_owned())),
    };
    let tokens = outcome.tokens.map(|t| Tokens {
        input: t.input,
        output: t.output,
        cache_creation: t.cache_write,
        cache_read: t.cache_read,
    });
    End { state, error, cost_usd: outcome.cost_usd, tokens }
}

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod gathering;
#[cfg(test)]
mod simulation;
