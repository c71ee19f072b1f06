//! The event stream: a snapshot at once, an `update` when sessions change (at most one a second), and every
//! transition, delivery and change of a run as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::extract::Query;
use super::{App, Error, sessions};
use crate::view::Filter;

const UPDATE_EVERY: Duration = Duration::from_secs(1);
/// Under the 15 seconds that are promised, by what a busy machine may be late.
const HEARTBEAT: Duration = Duration::from_secs(12);
/// What there is to select.
const KINDS: [&str; 4] = ["update", "transition", "delivery", "run"];
/// Typed events taken from the ring at once.
const CHUNK: usize = 256;

#[derive(Deserialize)]
pub(super) struct Selection {
    events: Option<String>,
}

impl Selection {
    /// The kinds that are wanted; an empty list is a list of none, and wants all.
    fn kinds(self) -> Result<Vec<&'static str>, Error> {
        let list = self.events.unwrap_or_default();
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.is_empty() {
            return Ok(KINDS.to_vec());
        }
        let known = |name: &&str| KINDS.into_iter().find(|kind| kind == name);
        names.iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect()
    }
}

fn unknown(name: &str) -> Error {
    Error::BadRequest(format!("unknown event {name:?}; valid: {}", KINDS.join(" ")))
}

/// One client.
struct Client {
    app: App,
    wants: Vec<&'static str>,
    version: watch::Receiver<u64>,
    newest: watch::Receiver<u64>,
    last_id: u64,
    /// When the last `update` went out; `None` = the snapshot is still owed.
    updated_at: Option<Instant>,
    queue: std::collections::VecDeque<Event>,
}

pub(super) async fn stream(
    State(app): State<App>,
    Query(selection): Query<Selection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let wants = selection.kinds()?;
    let newest = app.feed.newest();
    let tip = *newest.borrow();
    let resumed =
        headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| number(&app, id));
    let last_id = resumed.filter(|id| app.feed.after(*id, 1).is_some()).unwrap_or(tip);
    let version = app.view.version();
    let client = Client {
        app,
        wants,
        version,
        newest,
        last_id,
        updated_at: None,
        queue: std::collections::VecDeque::new(),
    };
    let stream = futures_util::stream::unfold(client, |mut client| async move {
        let event = client.next().await?;
        Some((Ok(event), client))
    });
    Ok(with_heartbeat(stream))
}

/// The answer with these events; a comment goes out whenever they are silent for too long.
fn with_heartbeat<S>(events: S) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<S>>
where
    S: Stream<Item = Result<Event, Infallible>> + Send + 'static,
{
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

/// The number in an event's id; `None` = it is none of this daemon's.
fn number(app: &App, id: &str) -> Option<u64> {
    let (started_at, number) = id.split_once('-')?;
    (started_at == app.started_at.as_millis().to_string()).then(|| number.parse().ok())?
}

impl Client {
    /// The next event to send; `None` when the daemon stops.
    async fn next(&mut self) -> Option<Event> {
        let mut stop = self.app.stop.clone();
        loop {
            if *stop.borrow() {
                return None;
            }
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let update_due = match self.updated_at {
                None => Some(Instant::now()),
                Some(at) => self.version.has_changed().unwrap_or(false).then(|| at + UPDATE_EVERY),
            };
            if update_due.is_some_and(|due| due <= Instant::now()) {
                // Where a client begins, and where it begins anew, it is told how things stand, whatever it selected.
                let is_owed = self.updated_at.is_none();
                self.updated_at = Some(Instant::now());
                self.version.mark_unchanged();
                if is_owed || self.wants("update") {
                    return Some(self.snapshot().await);
                }
                continue;
            }
            if *self.newest.borrow_and_update() > self.last_id {
                self.take_typed();
                continue;
            }
            tokio::select! {
                changed = self.version.changed(), if update_due.is_none() => {
                    if changed.is_err() {
                        return None;
                    }
                    // Seen again above, together with the time of the last update.
                    self.version.mark_changed();
                }
                () = sleep_until(update_due), if update_due.is_some() => {}
                _ = self.newest.changed() => {}
                _ = stop.changed() => {}
            }
        }
    }

    fn take_typed(&mut self) {
        match self.app.feed.after(self.last_id, CHUNK) {
            Some(items) => {
                for item in items {
                    self.last_id = item.id;
                    if self.wants(item.kind) {
                        let id = format!("{}-{}", self.app.started_at.as_millis(), item.id);
                        let event = Event::default().id(id).event(item.kind).data(&*item.data);
                        self.queue.push_back(event);
                    }
                }
            }
            None => {
                // Too slow for the ring: go on from the newest, with a fresh snapshot.
                self.last_id = *self.newest.borrow();
                self.updated_at = None;
            }
        }
    }

    async fn snapshot(&self) -> Event {
        let app = &self.app;
        let version = *app.view.version().borrow();
        let make = async {
            let sessions = app.view.list(&Filter::default(), app.window, (app.now)());
            let stats = sessions::counts(app).await.unwrap_or_default();
            json!({ "sessions": sessions, "stats": stats }).to_string()
        };
        Event::default().event("update").data(&*app.updates.of(version, make).await)
    }

    fn wants(&self, kind: &str) -> bool {
        self.wants.contains(&kind)
    }
}

/// The newest snapshot, serialised once for all clients. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updates(Arc<Mutex<Option<Update>>>);

#[derive(Debug)]
struct Update {
    version: u64,
    made_at: Instant,
    data: Arc<str>,
}

impl Updates {
    /// The snapshot of this version of the sessions. Counts may be a second old.
    async fn of(&self, version: u64, make: impl Future<Output = String>) -> Arc<str> {
        // Held while one client makes it: the others want the same.
        let mut newest = self.0.lock().await;
        let is_good = |update: &&Update| update.version == version && update.made_at.elapsed() < UPDATE_EVERY;
        if let Some(update) = newest.as_ref().filter(is_good) {
            return Arc::clone(&update.data);
        }
        let data: Arc<str> = make.await.into();
        *newest = Some(Update { version, made_at: Instant::now(), data: Arc::clone(&data) });
        data
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    #[test]
    fn an_empty_selection_is_everything_and_an_unknown_name_is_refused() {
        let kinds = |list: Option<&str>| Selection { events: list.map(str::to_owned) }.kinds();
        for all in [None, Some(""), Some(" , ")] {
            assert_eq!(kinds(all).unwrap(), KINDS);
        }
        assert_eq!(kinds(Some("run, transition,")).unwrap(), ["run", "transition"]);
        let Err(Error::BadRequest(text)) = kinds(Some("run,runs")) else { panic!("it is known") };
        assert_eq!(text, "unknown event \"runs\"; valid: update transition delivery run");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_serialised_once_for_all_clients() {
        let (updates, made) = (Updates::default(), std::cell::Cell::new(0));
        let get = async |version| {
            let make = async {
                made.set(made.get() + 1);
                // Whoever makes it waits for the journal's counts; the others come meanwhile.
                tokio::time::sleep(Duration::from_millis(10)).await;
                made.get().to_string()
            };
            updates.of(version, make).await.to_string()
        };
        let all = tokio::join!(get(1), get(1), get(1));
        assert_eq!(all, ("1".to_owned(), "1".to_owned(), "1".to_owned()));
        assert_eq!((get(2).await, get(2).await), ("2".to_owned(), "2".to_owned()), "the sessions changed");
        tokio::time::sleep(UPDATE_EVERY).await;
        assert_eq!(get(2).await, "3", "the counts are old");
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_comes_within_fifteen_seconds_of_silence_again_and_again() {
        let silent = futures_util::stream::pending::<Result<Event, Infallible>>();
        let mut body = with_heartbeat(silent).into_response().into_body();
        for _ in 0..3 {
            let silence = tokio::time::timeout(Duration::from_secs(15), body.frame());
            let frame = silence.await.expect("in time").expect("the stream goes on").expect("a frame");
            let bytes = frame.into_data().expect("data");
            // A line that starts with a colon is a comment, which clients pass over.
            assert!(bytes.starts_with(b":") && bytes.ends_with(b"\n\n"), "{bytes:?}");
        }
    }
}
