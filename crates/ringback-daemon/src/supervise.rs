//! The daemon's life: open, start each part once, run, stop in order.
//!
//! Parts and what their end means: the observer thread, the recorder, the endpoints with their deliverers, the
//! follower of the configuration, the API server, the tools' server, the dispatcher, the notifiers, the pruner. Each ends when it is told to stop; one that ends by itself is a bug and ends the daemon.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringback_model::prompt::Reach;
use ringback_model::{Agent, EndpointName, Secret};
use ringback_store::{Calls, Ledger, MemoryStore, Prune, SqliteStore, Store};
use ringback_webhook::client::Client;
use ringback_webhook::guard::Policy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{Config, Listen, Notify, Source};
use crate::deliver::{Deliverer, Mourner, Patience};
use crate::endpoints::Endpoints;
use crate::env::Env;
use crate::feed::Feed;
use crate::follow::Follower;
use crate::hook::{Hooks, call_log, declared};
use crate::http;
use crate::lane::{Lane, Lanes, Outlets};
use crate::mcp::{self, Tokens};
use crate::notify::Outlet;
use crate::record::{Origin, Recorder};
use crate::run::{self, Dispatcher, Runs};
use crate::state_dir::{self, Holder, Lock, StateDir};
use crate::storage::Health;
use crate::view::View;
use crate::watching::Watching;

/// First and last port tried where the user named none.
const PORTS: std::ops::RangeInclusive<u16> = 7421..=7431;
/// How far back sessions are looked for: the main session may have rested since last week.
const MAIN_SESSIONS: Duration = Duration::from_secs(7 * 86_400);
/// How long the pruner rests, at least and at most.
const PRUNE_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory, or another daemon in it.
    #[error(transparent)]
    State(#[from] state_dir::Error),
    /// The journal cannot be opened.
    #[error("cannot open {path}: {error}")]
    Store {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        error: ringback_store::Error,
    },
    /// The API cannot listen.
    #[error("cannot listen on {address}: {why}; set [server] listen to another address")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
    /// The hook listener cannot listen.
    #[error("cannot listen for hooks on {address}: {why}")]
    Hooks {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// A notifier's entry cannot be used.
    #[error("{name}: {why}")]
    Notifier {
        /// Which one, by its place in the list.
        name: String,
        /// Why.
        why: String,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Client(#[from] ringback_webhook::client::Error),
}

/// A daemon whose parts are started.
pub struct Daemon {
    /// One line per thing that was started.
    pub lines: Vec<String>,
    /// Address of the API, if it listens.
    pub api: Option<String>,
    /// The API's token.
    pub token: Arc<Secret>,
    first_scan: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    observer: Watching,
    tasks: JoinSet<&'static str>,
    /// Ends after the tasks: closed last.
    stores: Vec<Arc<dyn Store>>,
    /// Held until the very end.
    _lock: Lock,
}

impl Daemon {
    /// Opens the state, binds what is configured, starts every part. With a `source`, edits of the configuration are
    /// followed.
    ///
    /// # Errors
    /// Another daemon runs, the journal cannot be opened, a port is taken. Nothing is left running.
    pub async fn start(
        config: Config,
        source: Option<Source>,
        env: &Env,
        state: &Path,
    ) -> Result<Daemon, Error> {
        let config = Arc::new(config);
        // Certificate authorities are hundreds of files: they are read while the store is opened.
        let client = tokio::task::spawn_blocking(Client::new);
        let state = StateDir::open(state)?;
        let lock = state.lock()?;
        // The first of the parts: it has most to read before there is anything to show.
        let memory = config.delivery.durable.then(|| state.clone());
        if memory.is_none() {
            state.forget_observed()?;
        }
        let (observer, seen, first_scan) =
            Watching::start(observer_of(&config), memory).map_err(Error::Thread)?;
        let mut opened = Opened::open(&config, state, lock).await?;
        let sockets = Sockets::bind(&config).await?;
        let api = sockets.api.as_ref().and_then(|l| l.local_addr().ok()).map(shown_api);
        let started_at = Some(clock::now());
        opened.lock.announce(&Holder { pid: std::process::id(), api: api.clone(), started_at })?;

        let store_error = |error| Error::Store { path: opened.state.database(), error };
        let states = opened.journal.sessions().await.map_err(store_error)?;
        let view = View::default();
        for (id, name) in opened.durable.names().await.map_err(store_error)? {
            view.name(&id, Some(name));
        }
        let (stop, stopping) = watch::channel(false);
        let mut lines = vec![match &config.path {
            Some(path) => format!("config     {}", path.display()),
            None => "config     none; defaults are in force".to_owned(),
        }];
        let mut tasks: JoinSet<&'static str> = JoinSet::new();

        lines.extend(observed(&config));

        let feed = Feed::default();
        let own_ports = sockets.ports();
        let policy = Policy { network: config.delivery.network, own_ports, ..Policy::default() };
        let client = client.await.map_err(|error| Error::Thread(error.into()))??;
        let client = match &config.delivery.proxies {
            Some(proxies) => client.through(proxies.clone()),
            None => client,
        };
        let client = client.under(policy.clone());
        let outlets = open_outlets(&config, &client, &opened.ledger).await?;
        let tokens = Tokens::default();
        let runs = Runs::open(run::Setup {
            ledger: Arc::clone(&opened.ledger),
            config: config.runs.clone(),
            limits: config.ping_budget,
            bounds: config.inbound.bounds.clone(),
            env: env.clone(),
            view: view.clone(),
            feed: feed.clone(),
            outlets: Arc::clone(&outlets),
            reach: reach(&config),
            tokens: tokens.clone(),
            mcp_url: sockets.mcp.local_addr().ok().map(|a| format!("http://{a}/mcp")),
            output: opened.state.runs(),
            worktrees: opened.state.worktrees(),
            denied: denied(&config, env, &opened.state),
            now: moment,
            day: run::local_day,
        })
        .await
        .map_err(store_error)?;
        // Before any run starts: what the files name is kept from agents.
        let files = hook_files(&config, env, &runs);
        tasks.spawn(named("tools", serve_tools(sockets.mcp, tokens, runs.clone(), stopping.clone())));
        tasks.spawn(named("dispatcher", Dispatcher(runs.clone()).run(stopping.clone())));
        let messages = Messages {
            runs: runs.clone(),
            alive: Arc::default(),
            store: Arc::clone(&opened.durable),
            client: client.clone(),
        };
        for lane in outlets.values() {
            let deliverer = messages.deliverer(lane, &feed);
            tasks.spawn(named("notifier", deliverer.run(stopping.clone())));
        }
        lines.push(match (config.notify.len(), reach(&config)) {
            (0, Reach::DesktopOnly) => {
                "notify     desktop: no notifier is configured, messages to you appear on this desktop"
                    .to_owned()
            }
            (0, _) => "notify     console: no notifier is configured, messages to you appear here".to_owned(),
            (1, _) => "notify     1 notifier".to_owned(),
            (n, _) => format!("notify     {n} notifiers"),
        });
        let declared = files.as_ref().map(declared::Follower::declared).unwrap_or_default();
        let (calls, keeper) = call_log::CallLog::new(Arc::clone(&opened.calls));
        tasks.spawn(named("calls", keeper.run(stopping.clone())));
        if let Some((listener, hooks)) =
            sockets.hooks.zip(Hooks::new(&config.inbound, runs.clone(), declared.clone(), calls.clone()))
        {
            let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
            lines.push(format!("hooks      http://{address}/hook/agent"));
            lines.extend(declared.now().lines());
            tasks.spawn(named("hooks", hooks.serve(listener, stopping.clone())));
        }
        if let Some(files) = files {
            let runs = runs.clone();
            let seen = move |loaded: &declared::Loaded| runs.follow(loaded);
            tasks.spawn(named("hook files", files.run(seen, stopping.clone())));
        }

        let mut endpoints = Endpoints {
            lanes: Lanes::default(),
            journal: Arc::clone(&opened.journal),
            durable: Arc::clone(&opened.durable),
            key: Arc::clone(&opened.token),
            client,
            policy,
            patience: Patience {
                disable_after: config.delivery.disable_after,
                ledger: Arc::clone(&opened.ledger),
            },
            allowance: Arc::default(),
            feed: feed.clone(),
            now: clock::now,
            stop: stopping.clone(),
            deliverers: JoinSet::new(),
            closing: HashMap::new(),
            resting: HashMap::new(),
        };
        endpoints.apply(&config.endpoints, &config.skipped).await.map_err(store_error)?;
        let is_notifier_s = |name: &EndpointName| is_outlet(&config, name);
        endpoints.cancel_orphans(&config.skipped, is_notifier_s).await.map_err(store_error)?;
        let lanes = endpoints.lanes.clone();
        let health = Arc::new(Health::default());
        let watching = Arc::clone(&health).watch(Arc::clone(&opened.durable), stopping.clone());
        tasks.spawn(named("storage", watching));
        let origin = Origin { host: hostname(), api: api.clone() };
        let recorder = Recorder {
            states: states.into_iter().map(|s| (s.session_id.clone(), s)).collect(),
            store: Arc::clone(&opened.journal),
            lanes: lanes.clone(),
            view: view.clone(),
            feed: feed.clone(),
            health: Arc::clone(&health),
            origin: origin.clone(),
            run_sessions: runs.sessions(),
            dedup_window: config.delivery.dedup_window,
            catch_up: config.delivery.catch_up,
        };
        tasks.spawn(named("recorder", recorder.run(seen, stopping.clone())));
        let pruner = prune(
            opened.stores(),
            Arc::clone(&opened.calls),
            runs.clone(),
            config.delivery.clone(),
            stopping.clone(),
        );
        tasks.spawn(named("pruner", pruner));
        lines.push(match config.endpoints.iter().filter(|e| e.enabled).count() {
            0 => "webhooks   none configured; nothing is delivered (ringback init writes an example)"
                .to_owned(),
            n => format!("webhooks   {n} endpoint{}", if n == 1 { "" } else { "s" }),
        });
        let (configs, followed) = watch::channel(Arc::clone(&config));
        tasks.spawn(named("endpoints", endpoints.run(followed.clone())));
        if let Some(source) = source {
            let follower = Follower::new(source, Arc::clone(&config));
            tasks.spawn(named("follower", follower.run(configs, stopping.clone())));
        }

        if let Some(listener) = sockets.api {
            let address = listener
                .local_addr()
                .map_err(|e| Error::Listen { address: "the API".to_owned(), why: e.kind().to_string() })?;
            let app = http::App {
                store: Arc::clone(&opened.journal),
                names: Arc::clone(&opened.durable),
                runs,
                declared,
                calls,
                view,
                feed,
                updates: http::Updates::default(),
                lanes,
                health,
                origin,
                token: Arc::clone(&opened.token),
                salt: opened.salt.clone().into(),
                hosts: hosts(&config, address),
                is_loopback: address.ip().is_loopback(),
                window: config.window,
                network: config.delivery.network,
                config: followed,
                first_scan: first_scan.clone(),
                stop: stopping.clone(),
                started_at: clock::now(),
                now: clock::now,
            };
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "the API listens beyond this machine");
            }
            tasks.spawn(named("api", serve_api(listener, app, stopping)));
        }
        lines.push(match &api {
            Some(api) => format!("api        {api}"),
            None => "api        off".to_owned(),
        });
        let stores = opened.stores();
        let Opened { token, lock, .. } = opened;
        Ok(Daemon { lines, api, token, first_scan, stop, observer, tasks, stores, _lock: lock })
    }

    /// Turns true once the sessions in the window are read.
    pub fn first_scan(&self) -> watch::Receiver<bool> {
        self.first_scan.clone()
    }

    /// Runs until `shutdown` resolves, then stops in order: listeners, claims, attempts in flight (10 s at most),
    /// store.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            Some(ended) = self.tasks.join_next() => {
                tracing::error!(part = ended.unwrap_or("a part that failed"), "a part of ringback ended; stopping");
            }
        }
        self.stop.send_replace(true);
        self.observer.stop();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(11), ended).await.is_err() {
            self.tasks.abort_all();
        }
        self.observer.keep().await;
        for store in self.stores {
            if let Err(error) = store.close().await {
                tracing::warn!(%error, "the store did not close cleanly");
            }
        }
    }
}

/// The API's token: derived where there is a passphrase, random where not.
async fn token(state: &StateDir, passphrase: Option<Secret>, salt: String) -> Result<Secret, Error> {
    let Some(passphrase) = passphrase else { return Ok(state.token()?) };
    let derived = tokio::task::spawn_blocking(move || http::auth::derive(&passphrase, &salt)).await;
    let token = derived.map_err(|e| Error::Thread(std::io::Error::other(e)))?;
    state.keep_derived(&token)?;
    Ok(token)
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// What is open before anything runs.
struct Opened {
    state: StateDir,
    lock: Lock,
    token: Arc<Secret>,
    salt: String,
    ledger: Arc<dyn Ledger>,
    /// The memory of hooks' calls.
    calls: Arc<dyn Calls>,
    /// On disk, in both durability modes: names and the like, and messages to the user.
    durable: Arc<dyn Store>,
    /// Events, deliveries and session states: on disk where it is asked for.
    journal: Arc<dyn Store>,
}

impl Opened {
    async fn open(config: &Config, state: StateDir, lock: Lock) -> Result<Opened, Error> {
        let salt = match &config.salt {
            Some(salt) => salt.clone(),
            None => state.salt()?,
        };
        let token = Arc::new(token(&state, config.passphrase.clone(), salt.clone()).await?);
        let database = SqliteStore::open(&state.database())
            .map_err(|error| Error::Store { path: state.database(), error })?;
        let database = Arc::new(database);
        let durable: Arc<dyn Store> = Arc::<SqliteStore>::clone(&database);
        let calls: Arc<dyn Calls> = Arc::<SqliteStore>::clone(&database);
        let journal: Arc<dyn Store> =
            if config.delivery.durable { Arc::clone(&durable) } else { Arc::new(MemoryStore::new()) };
        Ok(Opened { state, lock, token, salt, ledger: database, calls, durable, journal })
    }

    /// Each store once.
    fn stores(&self) -> Vec<Arc<dyn Store>> {
        let mut stores = vec![Arc::clone(&self.journal)];
        if !Arc::ptr_eq(&self.journal, &self.durable) {
            stores.push(Arc::clone(&self.durable));
        }
        stores
    }
}

/// Where the daemon can be called.
struct Sockets {
    api: Option<TcpListener>,
    hooks: Option<TcpListener>,
    /// Of its own: runs reach their tools whether or not, and wherever, the API listens.
    mcp: TcpListener,
}

impl Sockets {
    async fn bind(config: &Config) -> Result<Sockets, Error> {
        let api = bind(&config.listen).await?;
        let hooks = bind_hooks(&config.inbound).await?;
        let mcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let mcp =
            mcp.map_err(|e| Error::Listen { address: "127.0.0.1".to_owned(), why: e.kind().to_string() })?;
        Ok(Sockets { api, hooks, mcp })
    }

    /// The ports that no endpoint may lead to.
    fn ports(&self) -> BTreeSet<u16> {
        let all = [self.api.as_ref(), self.hooks.as_ref(), Some(&self.mcp)];
        all.into_iter().flatten().filter_map(|l| Some(l.local_addr().ok()?.port())).collect()
    }
}

/// What the notifiers' loops share.
struct Messages {
    runs: Runs,
    /// Which messages still have a chance somewhere.
    alive: Arc<run::Alive>,
    store: Arc<dyn Store>,
    client: Client,
}

impl Messages {
    fn deliverer(&self, lane: &Arc<Lane>, feed: &Feed) -> Deliverer {
        let (runs, alive) = (self.runs.clone(), Arc::clone(&self.alive));
        let mourner: Mourner = Arc::new(move |id, body| {
            let (runs, alive) = (runs.clone(), Arc::clone(&alive));
            Box::pin(async move { runs.message_died(&alive, id, &body).await })
        });
        Deliverer {
            lane: Arc::clone(lane),
            store: Arc::clone(&self.store),
            client: self.client.clone(),
            feed: feed.clone(),
            mourner: Some(mourner),
            patience: None,
            // One of its own: what dead endpoints do holds up no message to the user.
            allowance: Arc::default(),
            now: clock::now,
        }
    }
}

/// Serves the tools of runs.
async fn serve_tools(listener: TcpListener, tokens: Tokens, runs: Runs, mut stop: watch::Receiver<bool>) {
    let toolbox: Arc<dyn mcp::Toolbox> = Arc::new(runs);
    let tools = mcp::service(tokens, toolbox, vec!["127.0.0.1".to_owned()]);
    let served = axum::serve(listener, tools).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    if let Err(error) = served.await {
        tracing::error!(%error, "the tools' server failed");
    }
}

async fn serve_api(listener: TcpListener, app: http::App, mut stop: watch::Receiver<bool>) {
    let served = axum::serve(listener, http::router(app)).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    if let Err(error) = served.await {
        tracing::error!(%error, "the API server failed");
    }
}

/// The hook files, read once; runs go by them from the start. `None`: there is no directory for
/// configuration.
fn hook_files(config: &Config, env: &Env, runs: &Runs) -> Option<declared::Follower> {
    let directory = declared::directory(env)?;
    let env = config.with_dotenv(env);
    let files = declared::Follower::new(directory, config.inbound.allow_unsigned, env, config.runs.clone());
    runs.follow(&files.declared().now());
    Some(files)
}

/// The hook listener's socket, where a port is configured.
async fn bind_hooks(inbound: &crate::config::Inbound) -> Result<Option<TcpListener>, Error> {
    let Some(port) = inbound.port else { return Ok(None) };
    let address = SocketAddr::new(inbound.bind, port);
    if !inbound.bind.is_loopback() {
        tracing::warn!(%address, "the hook listener is reachable beyond this machine");
    }
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(e) => Err(Error::Hooks { address, why: e.kind().to_string() }),
    }
}

/// Whether a queue is one of the notifiers'.
fn is_outlet(config: &Config, name: &EndpointName) -> bool {
    notifiers(config).iter().any(|notifier| notifier.lane_name() == name.as_str())
}

/// What is configured, else what stands in.
fn notifiers(config: &Config) -> &[Notify] {
    if config.notify.is_empty() { std::slice::from_ref(&config.stand_in) } else { &config.notify }
}

/// What runs are told about where their pings go.
fn reach(config: &Config) -> Reach {
    match (config.notify.is_empty(), &config.stand_in) {
        (false, _) => Reach::Notifiers,
        (true, Notify::Desktop { .. }) => Reach::DesktopOnly,
        (true, _) => Reach::ConsoleOnly,
    }
}

/// A lane per notifier.
async fn open_outlets(config: &Config, client: &Client, ledger: &Arc<dyn Ledger>) -> Result<Outlets, Error> {
    let mut lanes: HashMap<EndpointName, Arc<Lane>> = HashMap::new();
    for entry in notifiers(config) {
        let name = entry.lane_name();
        let opened = Outlet::open(entry, client, ledger).await;
        let outlet =
            opened.map_err(|error| Error::Notifier { name: name.clone(), why: error.to_string() })?;
        let lane = Lane::notifier(&name, outlet);
        lanes.insert(lane.endpoint.name.clone(), Arc::new(lane));
    }
    Ok(Arc::new(lanes))
}

/// What no run may read: ringback's own files.
fn denied(config: &Config, env: &Env, state: &StateDir) -> Vec<std::path::PathBuf> {
    let beside = config.path.as_ref().and_then(|p| std::path::absolute(p).ok()?.parent().map(Path::to_owned));
    let mut denied = vec![state.path().to_owned()];
    denied.extend(crate::config::directory(env));
    denied.extend(beside);
    denied.dedup();
    denied
}

fn moment() -> ringback_model::budget::Moment {
    let at = clock::now();
    ringback_model::budget::Moment { at, date: run::local_date(at) }
}

/// The API's socket, where one is wanted.
pub(crate) async fn bind(listen: &Listen) -> Result<Option<TcpListener>, Error> {
    match listen {
        Listen::Off => Ok(None),
        Listen::At(address) => {
            let failed = |why: String| Error::Listen { address: address.clone(), why };
            let given = address.trim();
            // A bare port, or one after a colon, is loopback: listening wider is said in full.
            let full = match given.strip_prefix(':').unwrap_or(given).parse::<u16>() {
                Ok(port) => format!("127.0.0.1:{port}"),
                Err(_) => given.replace("localhost:", "127.0.0.1:"),
            };
            let socket: SocketAddr = full.parse().map_err(|_| failed("expected ADDRESS:PORT".to_owned()))?;
            let listener = TcpListener::bind(socket).await.map_err(|e| failed(e.kind().to_string()))?;
            Ok(Some(listener))
        }
        Listen::Default => {
            for port in PORTS {
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                    return Ok(Some(listener));
                }
            }
            let address = format!("127.0.0.1:{}-{}", PORTS.start(), PORTS.end());
            Err(Error::Listen { address, why: "every port is taken".to_owned() })
        }
    }
}

/// The address to call: a wildcard bind is called on loopback.
fn shown_api(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

fn hosts(config: &Config, address: SocketAddr) -> Arc<[String]> {
    let mut hosts = config.allowed_hosts.clone();
    if !address.ip().is_unspecified() {
        hosts.push(address.ip().to_string());
    }
    hosts.into()
}

fn hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

fn observer_of(config: &Config) -> ringback_observe::Config {
    let on = |agent| config.agents.contains(&agent);
    ringback_observe::Config {
        claude_dirs: if on(Agent::Claude) { config.claude_dirs.clone() } else { Vec::new() },
        codex_homes: if on(Agent::Codex) { config.codex_homes.clone() } else { Vec::new() },
        desktop_dirs: if on(Agent::Claude) { config.desktop_dirs.clone() } else { Vec::new() },
        exclude_cwd_substrings: config.exclude_cwd_substrings.clone(),
        rules: config.rules.clone(),
        window: config.window.max(MAIN_SESSIONS),
    }
}

/// The directories that are watched, whether they exist or not.
pub(crate) fn watched(config: &Config) -> Vec<std::path::PathBuf> {
    let processes = Box::new(ringback_observe::ProcFs);
    ringback_observe::Observer::new(observer_of(config), processes, clock::now()).directories()
}

fn observed(config: &Config) -> Vec<String> {
    let observer = observer_of(config);
    let roots: Vec<_> = observer.claude_dirs.iter().chain(&observer.codex_homes).collect();
    let found: Vec<String> =
        roots.iter().filter(|d| d.is_dir()).map(|d| format!("watching   {}", d.display())).collect();
    if found.is_empty() {
        let looked = roots.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ");
        return vec![format!(
            "watching   no agent directory found yet (looked at {looked}); sessions appear once an agent is used"
        )];
    }
    found
}

/// How long the pruner rests: a quarter of what is kept, so that nothing stays much longer than asked for.
fn prune_every(retention: Duration) -> Duration {
    (retention / 4).clamp(PRUNE_EVERY.0, PRUNE_EVERY.1)
}

/// Removes finished history now, and again and again.
async fn prune(
    stores: Vec<Arc<dyn Store>>,
    calls: Arc<dyn Calls>,
    runs: Runs,
    delivery: crate::config::Delivery,
    mut stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        for store in &stores {
            let prune =
                Prune { now: clock::now(), keep_for: delivery.retention, max_bytes: delivery.retention_size };
            match store.prune(prune).await {
                Ok(pruned) if pruned.events > 0 => {
                    tracing::info!(events = pruned.events, "finished history pruned")
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "finished history cannot be pruned"),
            }
        }
        if let Err(error) = runs.prune(delivery.retention).await {
            tracing::warn!(%error, "finished runs cannot be pruned");
        }
        if let Err(error) = calls.prune_calls(clock::now().minus(delivery.retention)).await {
            tracing::warn!(%error, "old calls of hooks cannot be pruned");
        }
        tokio::select! {
            () = tokio::time::sleep(prune_every(delivery.retention)) => {}
            _ = stop.changed() => return,
        }
    }
}

/// One look at the agents' files without a daemon: reads, tells nobody, writes nothing.
pub fn look_once(config: &Config) -> View {
    let view = View::default();
    let mut observer = ringback_observe::Observer::new(
        observer_of(config),
        Box::new(ringback_observe::ProcFs),
        clock::now(),
    );
    for seen in observer.scan(clock::now()) {
        view.put(crate::record::shown(match seen {
            ringback_observe::Seen::Sighting(sighted) => sighted.snapshot,
            ringback_observe::Seen::About(snapshot) => snapshot,
        }));
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_pruned_four_times_in_its_retention_within_five_seconds_and_an_hour() {
        let secs = Duration::from_secs;
        for (retention, every) in [(0, 5), (8, 5), (60, 15), (4 * 3600, 3600), (7 * 86_400, 3600)] {
            assert_eq!(prune_every(secs(retention)), secs(every), "{retention}");
        }
    }
}
