//! The thread around the observer: file events, timers, polling where events do not work.
//!
//! Owns: when the observer is asked to look. A lost wake-up costs time, never a change: every look reads on from
//! where the last one ended, and a slow rescan finds what no event told. Does not know: what the files mean.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use ringback_model::Timestamp;

use crate::memory::Memory;
use crate::observer::Observer;
use crate::session::Seen;
use crate::tail::CHUNK;
use crate::transcript::Backfill;

/// How often everything is looked through although no event asked for it.
const RESCAN: Duration = Duration::from_secs(30);
/// How often directories without events are looked through.
const POLL: Duration = Duration::from_secs(1);
/// A difference between the clock and the time that passed beyond which the machine slept or its clock was set.
const JUMP: Duration = Duration::from_secs(60);
/// When a new directory is looked at again: files made in it before it was watched raise no event.
const NEW_DIRECTORY: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(150), Duration::from_secs(1)];
/// Paths that wait to be looked at; beyond, everything is looked through.
const PENDING: usize = 4096;
/// Threads that sum up old history at the same time: two cores have work while what one found is taken in.
const SUMMING: usize = 3;
/// Bytes that they sum up between two looks at whether to stop.
const SLICE: u64 = 1024 * 1024;

/// Stops a running watch from another thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inbox>);

/// What waits for the watch.
#[derive(Debug, Default)]
struct Inbox {
    pending: Mutex<Pending>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    paths: BTreeSet<PathBuf>,
    /// Events were lost, or the watching itself failed.
    rescan: bool,
    out_of_watches: bool,
    summed: Vec<Backfill>,
    stop: bool,
}

impl Handle {
    /// For one call of [`run`].
    pub fn new() -> Self {
        Handle(Arc::new(Inbox::default()))
    }

    /// Makes [`run`] return soon.
    pub fn stop(&self) {
        self.0.lock().stop = true;
        self.0.arrived.notify_all();
    }
}

impl Default for Handle {
    fn default() -> Self {
        Handle::new()
    }
}

/// Runs `observer` on this thread until `out` breaks or `handle` stops it, and returns what it knows by then.
///
/// `out` is called with the first scan's result even when nothing was seen, and after that whenever something was.
/// `clock` tells the present; the thread sleeps while there is nothing to do.
pub fn run(
    mut observer: Observer,
    handle: &Handle,
    clock: impl Fn() -> Timestamp,
    mut out: impl FnMut(Vec<Seen>) -> ControlFlow<()>,
) -> Memory {
    let inbox = &handle.0;
    let mut watches = Watches::new(observer.directories(), Arc::clone(inbox));
    watches.arm();
    let mut wall = clock();
    let mut steady = Instant::now();
    if out(observer.scan(wall)).is_break() {
        return observer.remember();
    }
    let mut rescan_at = steady + RESCAN;
    let mut look_again: Vec<(Instant, PathBuf)> = Vec::new();
    let mut summing = Summing::new(Arc::clone(inbox));
    loop {
        summing.go_on(&mut observer);
        let wait = {
            let timer = observer.next_timer().map(|at| at.since(wall).saturating_sub(steady.elapsed()));
            let again = look_again.iter().map(|(at, _)| *at).min();
            let deadline = again.map_or(rescan_at, |again| rescan_at.min(again));
            let wait = deadline.saturating_duration_since(Instant::now());
            let wait = if watches.must_poll() { wait.min(POLL) } else { wait };
            // A timer is an instant of the clock: it has come when the clock says so, not a little before.
            timer.map_or(wait, |timer| wait.min(timer + Duration::from_millis(1)))
        };
        let work = inbox.take(wait);
        if work.stop {
            return observer.remember();
        }
        let (now, passed) = (clock(), steady.elapsed());
        let clock_passed = now.since(wall);
        let has_jumped = clock_passed.abs_diff(passed) > JUMP || now < wall.minus(JUMP);
        (wall, steady) = (now, Instant::now());

        let mut seen = Vec::new();
        if has_jumped {
            tracing::info!("the machine slept or its clock was set: looking at everything again");
            seen.extend(observer.resumed(now));
        }
        if work.out_of_watches {
            watches.poll_instead();
        }
        if work.paths.iter().any(|path| watches.is_concerned(path)) {
            watches.arm();
            seen.extend(observer.scan(now));
            rescan_at = rescan_at.min(steady + POLL);
        } else if !work.paths.is_empty() {
            let paths: Vec<PathBuf> = work.paths.into_iter().collect();
            for path in paths.iter().filter(|path| path.is_dir()) {
                look_again.extend(NEW_DIRECTORY.map(|after| (steady + after, path.clone())));
            }
            seen.extend(observer.changed(&paths, now));
        }
        let due: Vec<PathBuf> =
            look_again.extract_if(.., |(at, _)| *at <= steady).map(|(_, path)| path).collect();
        if look_again.len() > PENDING {
            look_again.clear();
            rescan_at = steady;
        }
        if !due.is_empty() {
            seen.extend(observer.changed(&due, now));
        }
        if work.rescan || watches.must_poll() || steady >= rescan_at {
            if work.rescan || steady >= rescan_at {
                watches.arm();
                rescan_at = steady + RESCAN;
            }
            seen.extend(observer.scan(now));
        }
        if observer.next_timer().is_some_and(|at| at <= now) {
            seen.extend(observer.tick(now));
        }
        for summed in work.summed {
            summing.going -= 1;
            seen.extend(observer.take_sums(summed, now));
        }
        if !seen.is_empty() && out(seen).is_break() {
            return observer.remember();
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is there, at most for `wait`, and takes it.
    fn take(&self, wait: Duration) -> Pending {
        let is_empty = |p: &mut Pending| {
            p.paths.is_empty() && p.summed.is_empty() && !p.rescan && !p.out_of_watches && !p.stop
        };
        let (mut pending, _) = self
            .arrived
            .wait_timeout_while(self.lock(), wait, is_empty)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *pending)
    }

    fn put(&self, event: notify::Result<notify::Event>) {
        let mut pending = self.lock();
        match event {
            // Reading is an event too, our own above all.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) => {
                pending.rescan |= event.need_rescan();
                pending.paths.extend(event.paths);
                if pending.paths.len() > PENDING {
                    pending.paths.clear();
                    pending.rescan = true;
                }
            }
            Err(error) => {
                pending.out_of_watches |= is_limit(&error);
                pending.rescan = true;
            }
        }
        drop(pending);
        self.arrived.notify_all();
    }
}

/// The threads that sum up old parts of big files, one file each. There are none when there is nothing to sum up.
struct Summing {
    inbox: Arc<Inbox>,
    /// Files that are out.
    going: usize,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Summing {
    fn new(inbox: Arc<Inbox>) -> Self {
        Summing { inbox, going: 0, threads: Vec::new(), stop: Arc::default() }
    }

    /// Puts free threads to work.
    fn go_on(&mut self, observer: &mut Observer) {
        self.threads.retain(|thread| !thread.is_finished());
        while self.going < SUMMING
            && let Some(backfill) = observer.lend_backfill()
        {
            let (inbox, stop) = (Arc::clone(&self.inbox), Arc::clone(&self.stop));
            let thread = std::thread::Builder::new().name("observer-sums".to_owned());
            match thread.spawn(move || sum_up(*backfill, &inbox, &stop)) {
                Ok(thread) => {
                    self.going += 1;
                    self.threads.push(thread);
                }
                Err(error) => {
                    tracing::warn!(%error, "the totals of a session stay without its old part");
                }
            }
        }
    }
}

impl Drop for Summing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that sums up sessions panicked");
            }
        }
    }
}

fn sum_up(mut backfill: Backfill, inbox: &Inbox, stop: &AtomicBool) {
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        if !backfill.sum_up(&mut buffer, SLICE) {
            inbox.lock().summed.push(backfill);
            inbox.arrived.notify_all();
            return;
        }
    }
}

/// The directories that are watched, each by events or, where those do not work, by polling.
struct Watches {
    watcher: Option<RecommendedWatcher>,
    roots: Vec<(PathBuf, Watching)>,
    /// Existing parents of roots that do not exist yet.
    parents: BTreeSet<PathBuf>,
    has_warned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watching {
    /// The directory does not exist; its nearest existing parent is watched.
    Missing,
    Events,
    Polling,
}

impl Watches {
    fn new(directories: Vec<PathBuf>, inbox: Arc<Inbox>) -> Self {
        let watcher = notify::recommended_watcher(move |event| inbox.put(event));
        let mut watches = Watches {
            watcher: None,
            roots: directories.into_iter().map(|dir| (dir, Watching::Missing)).collect(),
            parents: BTreeSet::new(),
            has_warned: false,
        };
        match watcher {
            Ok(watcher) => watches.watcher = Some(watcher),
            Err(error) => watches.warn(&error.to_string()),
        }
        watches
    }

    /// Watches every directory that exists, and of the others the parents.
    fn arm(&mut self) {
        self.arm_once();
        // One that was made just before its parent was watched raised no event.
        while self.roots.iter().any(|(dir, watching)| *watching == Watching::Missing && dir.is_dir()) {
            self.arm_once();
        }
    }

    fn arm_once(&mut self) {
        let mut roots = std::mem::take(&mut self.roots);
        let mut parents = BTreeSet::new();
        for (dir, watching) in &mut roots {
            if !dir.is_dir() {
                *watching = Watching::Missing;
                parents.extend(dir.ancestors().find(|a| a.is_dir()).map(Path::to_owned));
            } else if *watching == Watching::Missing {
                *watching = if is_remote(dir) {
                    self.warn("the file system sends no events for what other machines write");
                    Watching::Polling
                } else {
                    self.watch(dir, RecursiveMode::Recursive)
                };
            }
        }
        self.roots = roots;
        for gone in self.parents.difference(&parents).cloned().collect::<Vec<_>>() {
            if let Some(watcher) = &mut self.watcher {
                // It may be gone altogether, which ended the watch as well.
                let _ = watcher.unwatch(&gone);
            }
        }
        for new in parents.difference(&self.parents).cloned().collect::<Vec<_>>() {
            if self.watch(&new, RecursiveMode::NonRecursive) == Watching::Polling {
                parents.remove(&new);
            }
        }
        self.parents = parents;
    }

    fn watch(&mut self, dir: &Path, mode: RecursiveMode) -> Watching {
        let Some(watcher) = &mut self.watcher else { return Watching::Polling };
        match watcher.watch(dir, mode) {
            Ok(()) => Watching::Events,
            Err(error) => {
                self.warn(&error.to_string());
                Watching::Polling
            }
        }
    }

    /// Whether something happened to a watched directory itself, or on the way to one that does not exist.
    fn is_concerned(&mut self, path: &Path) -> bool {
        let mut is_concerned = false;
        for (dir, watching) in &mut self.roots {
            if dir.starts_with(path) && (*watching == Watching::Missing || !dir.exists()) {
                *watching = Watching::Missing;
                is_concerned = true;
            }
        }
        is_concerned
    }

    fn must_poll(&self) -> bool {
        let has_no_parent = self.roots.iter().any(|(dir, watching)| {
            *watching == Watching::Missing && !self.parents.iter().any(|parent| dir.starts_with(parent))
        });
        has_no_parent || self.roots.iter().any(|(_, watching)| *watching == Watching::Polling)
    }

    fn poll_instead(&mut self) {
        self.warn("the system has no more file watches");
        for (_, watching) in self.roots.iter_mut().filter(|(_, w)| *w == Watching::Events) {
            *watching = Watching::Polling;
        }
    }

    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                why,
                "session directories are looked through each second; on Linux, more events are allowed with \
                 `sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024`"
            );
        }
    }
}

fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::MaxFilesWatch => true,
        ErrorKind::Io(e) => {
            matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}

/// Whether what others write there raises no events here: NFS, SMB, FUSE, 9p.
#[cfg(target_os = "linux")]
fn is_remote(dir: &Path) -> bool {
    const REMOTE: [u32; 6] = [0x6969, 0x517B, 0xFE53_4D42, 0xFF53_4D42, 0x6573_5546, 0x0102_1997];
    nix::sys::statfs::statfs(dir).is_ok_and(|fs| {
        // The width and sign of the magic differ between platforms; its lower 32 bits do not.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "only the lower 32 bits count"
        )]
        let magic = fs.filesystem_type().0 as u32;
        REMOTE.contains(&magic)
    })
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_dir: &Path) -> bool {
    false
}
