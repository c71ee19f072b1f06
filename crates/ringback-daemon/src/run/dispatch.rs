//! The dispatcher: takes runs from the queue, oldest first, carries each out, and writes down how it ended.
//!
//! A run is journaled as working before its process starts, so that after a crash the next start knows what to look
//! for: what is left of it is ended, and the run counts as interrupted.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringback_model::run::{End, Process, Run, RunId, RunState, Tokens};
use ringback_model::{Agent, SessionId, prompt};
use ringback_runs::{Adapter, Environment, Leader, Order, Outcome, Progress, Session, Spec, TurnResult};
use ringback_store::{Accept, Save};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Active, KEY_TTL, Main, Runs};
use crate::config::AgentEntry;
use crate::mcp::ToolSet;

/// How long a ledger that fails is left alone.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);
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
        runs.recover().await;
        let slots = runs.0.config.max_concurrent;
        let mut going: JoinSet<()> = JoinSet::new();
        while !*stop.borrow() {
            let mut pause = None;
            if going.len() < slots {
                match runs.take_queued(slots - going.len()).await {
                    Ok(taken) => {
                        for active in taken {
                            let runs = runs.clone();
                            going.spawn(async move { runs.carry_out(active).await });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot take runs from the queue");
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

impl Runs {
    /// Ends the processes of runs that were going on when ringback was killed.
    async fn recover(&self) {
        let left = match self.0.ledger.unfinished().await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "cannot look for runs that a crash left behind");
                return;
            }
        };
        let mut ending = JoinSet::new();
        for run in left {
            let this = self.clone();
            ending.spawn(async move {
                let leader = leader_of(&run);
                let ended = ringback_runs::recover(run.id.0, leader, RECOVER_KILL_AFTER).await;
                tracing::info!(run = %run.id, processes = ended, "a run was interrupted by the end of ringback");
                let again = run.request.retry.then(|| run.again(RunId(Uuid::new_v4()), this.moment().at));
                let end = End {
                    state: RunState::Interrupted,
                    error: Some("ringback stopped while it ran".to_owned()),
                    cost_usd: None,
                    tokens: None,
                };
                this.finish(run, end).await;
                if let Some(run) = again {
                    let accept =
                        Accept { run, key: None, now: this.moment().at, key_ttl: KEY_TTL, max_queued: u64::MAX };
                    if let Err(error) = this.0.ledger.accept(accept).await {
                        tracing::warn!(%error, "an interrupted run cannot be queued again");
                    }
                }
            });
        }
        while ending.join_next().await.is_some() {}
    }

    /// Takes up to `free` runs from the queue: each is journaled as working and known as active.
    async fn take_queued(&self, free: usize) -> Result<Vec<Arc<Active>>, ringback_store::Error> {
        let mut taken = Vec::new();
        for run in self.0.ledger.queued(free).await? {
            let main = self.main_session(&run.request.workspace, None).await;
            let adapter = self.0.config.agents.get(&run.request.agent).map(|a| a.adapter);
            let fork = fork_of(&run, adapter, main.as_ref()).ok();
            // A cancel looks at the queue and at the active runs under this lock.
            let _books = self.0.books.lock().await;
            let Some(mut run) = self.0.ledger.run(run.id).await? else { continue };
            if run.start(fork, self.moment().at).is_err() {
                continue;
            }
            if adapter == Some(Adapter::Claude) {
                // Chosen beforehand, so that the run and the session that the observer sees are one from the start.
                let session = SessionId::new(Uuid::new_v4().to_string());
                self.join(session.clone(), run.id, &run.request.source);
                run.session_id = Some(session);
            }
            self.0.ledger.save(Save { runs: vec![run.clone()], ..Save::default() }).await?;
            self.0.feed.push("run", self.shown(&run).to_string());
            let active = Arc::new(Active {
                orders: watch::Sender::new(Order::Proceed),
                pings: AtomicU32::new(0),
                main: main.map(|m| m.id),
                run: Mutex::new(run.clone()),
            });
            self.set_active(run.id, Some(Arc::clone(&active)));
            taken.push(active);
        }
        Ok(taken)
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
        let main = self.main_session(&request.workspace, None).await;
        let start = match (request.isolated, fork_of(&run, Some(entry.adapter), main.as_ref())) {
            (true, _) => prompt::Start::Isolated,
            (false, Ok(_)) if run.forked_from.is_some() => prompt::Start::Fork,
            (false, Ok(_)) => prompt::Start::WithoutHistory(prompt::NoHistory::NoMainSession),
            (false, Err(why)) => prompt::Start::WithoutHistory(why),
        };
        let main_dir = main.as_ref().and_then(|m| m.shown.as_ref()).map(|s| s.about.cwd.clone());
        let cwd = match (&run.forked_from, main_dir) {
            (Some(_), Some(dir)) if !dir.is_empty() => dir.into(),
            _ => workspace.path.clone(),
        };
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
        let text = prompt::prompt(&prompt::PromptFacts {
            source: &request.source,
            message: &request.message,
            allow_ping: request.allow_ping && mcp.is_some(),
            update_main_session: request.update_main_session,
            busy: main.as_ref().is_some_and(Main::is_busy),
            budget: &level,
            start,
            allowed_tools: (entry.adapter == Adapter::Claude).then_some(request.allowed_tools.as_slice()),
            reach: if self.0.is_console_only { prompt::Reach::ConsoleOnly } else { prompt::Reach::Notifiers },
            updates: &updates,
            now: self.moment().at,
        });
        Ok(Spec {
            run_id: run.id.0,
            adapter: entry.adapter,
            command: entry.command.clone(),
            cwd,
            prompt: text,
            env: Environment::select(&self.0.env.all(), &entry.env, &self.0.config.never),
            mcp,
            limits: ringback_runs::Limits::new(request.limits.timeout()),
            output_dir: self.output(run.id),
            session: session_of(&run),
            model: request.model.as_deref().map(|m| model_of(entry, m)),
            thinking: request.thinking,
            allowed_tools: request.allowed_tools.clone(),
            denied_dirs: self.0.denied.clone(),
            max_turns: Some(request.limits.max_turns).filter(|n| *n > 0),
            max_cost_usd: Some(request.limits.max_cost_usd).filter(|c| *c > 0.0),
        })
    }

    /// Writes a run's end down, and tells the user where there is something to tell. Tries until the ledger takes
    /// it: the run holds its slot meanwhile.
    async fn finish(&self, run: Run, end: End) {
        loop {
            // The tools write under the same lock: what they noted last is in the active run.
            let books = self.0.books.lock().await;
            let mut run = self.active(run.id).map_or_else(|| run.clone(), |active| active.run().clone());
            if run.finish(end.clone(), self.moment().at).is_err() {
                // It has ended already, by another hand.
                self.set_active(run.id, None);
                return;
            }
            let text = run.told_at_end();
            let told = text.iter().map(|text| self.message(Some(&run), text, None, false)).collect();
            match self.0.ledger.save(Save { runs: vec![run.clone()], values: Vec::new(), told }).await {
                Ok(()) | Err(ringback_store::Error::Closed) => {
                    self.set_active(run.id, None);
                    if text.is_some() {
                        self.wake_outlets();
                    }
                    self.0.feed.push("run", self.shown(&run).to_string());
                    return;
                }
                Err(error) => {
                    tracing::warn!(run = %run.id, %error, "the end of a run cannot be written down")
                }
            }
            drop(books);
            tokio::time::sleep(LEDGER_PAUSE).await;
        }
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
        if let Progress::Session(id) = fact {
            let mut run = self.active.run();
            if run.session_id.as_ref() != Some(id) {
                run.session_id = Some(id.clone());
                self.runs.join(id.clone(), run.id, &run.request.source);
            }
        }
    }

    fn another_turn(&mut self, _turn: &TurnResult) -> Option<String> {
        let owes = self.active.run().owes_report() && self.runs.0.mcp_url.is_some();
        (owes && !std::mem::replace(&mut self.is_asked, true)).then(|| OWED.to_owned())
    }
}

/// The session that a run forks, or why it has no history.
fn fork_of(run: &Run, adapter: Option<Adapter>, main: Option<&Main>) -> Result<SessionId, prompt::NoHistory> {
    if adapter != Some(Adapter::Claude) || run.request.isolated {
        return Err(prompt::NoHistory::CannotFork);
    }
    let main = main.ok_or(prompt::NoHistory::NoMainSession)?;
    match main.agent() {
        Some(Agent::Claude) | None => Ok(main.id.clone()),
        Some(_) => Err(prompt::NoHistory::OtherAgent),
    }
}

fn session_of(run: &Run) -> Session {
    let id = run.session_id.as_ref().and_then(|id| id.as_str().parse::<Uuid>().ok());
    match (id, &run.forked_from) {
        (Some(id), Some(of)) => Session::Fork { of: of.clone(), id },
        (Some(id), None) => Session::New { id },
        (None, _) => Session::Unnamed,
    }
}

fn model_of(entry: &AgentEntry, model: &str) -> String {
    entry.models.get(model).cloned().unwrap_or_else(|| model.to_owned())
}

fn leader_of(run: &Run) -> Leader {
    let process = run.process.as_ref();
    Leader {
        pid: process.and_then(|p| i32::try_from(p.pid).ok()).unwrap_or(0),
        started: process.and_then(|p| p.started.parse().ok()),
    }
}

fn failed(why: String) -> End {
    End { state: RunState::Failed, error: Some(why), cost_usd: None, tokens: None }
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
