//! `POST /hook/{slug}`: the order in which a call of a declared hook is asked.
//!
//! Authentication comes first, over the raw bytes where the sender signs them; then rates, then what the payload means,
//! then idempotency. What the payload means is [`declared`]'s.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::request::Parts as Head;
use axum::http::{Method, StatusCode};
use hyper::body;
use ringback_model::inbound::bounds::Caller;
use ringback_model::inbound::{self, IdempotencyKey, Refusal, SHOWN_CHARS};
use ringback_webhook::senders::{self, Incoming, Verified};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::call_log::note;
use super::declared::{self, Auth, Filled, Hook, Sent, Unfit};
use super::{Answered, Hooks, READ_AWAY, Refused, idempotency_key, is_plain};
use crate::clock;

impl From<Unfit> for Refused {
    fn from(unfit: Unfit) -> Self {
        Refused { status: StatusCode::BAD_REQUEST, body: unfit.body(), retry_after: None }
    }
}

impl Hooks {
    /// A path below `/hook/` that is not `agent`.
    pub(super) async fn declared(
        &self,
        peer: IpAddr,
        head: &Head,
        body: &mut body::Incoming,
        is_bearer: bool,
    ) -> Result<Answered, Refused> {
        let path = head.uri.path();
        let slug = path.strip_prefix("/hook/").unwrap_or_default();
        let hook = self.0.declared.now().hooks.get(slug).cloned();
        let Some(hook) = hook else {
            return Err(match (is_bearer, slug.is_empty() || slug.contains('/')) {
                (false, _) => self.unauthorized(peer),
                (true, true) => Refusal::NotFound.into(),
                (true, false) => not_found(slug),
            });
        };
        if !is_bearer && (matches!(hook.auth, Auth::Shared) || head.method != Method::POST) {
            return Err(self.unauthorized(peer));
        }
        if head.method != Method::POST {
            return Err(Refusal::MethodNotAllowed.into());
        }
        // Refused for its body, which is not kept then.
        let early = |refused: Refused, call: &senders::Call| {
            let noted = note(&hook, head, clock::now(), None, call);
            let refused = Err(refused);
            self.0.call_log.keep(noted, &refused);
            refused
        };
        let Auth::Sender { scheme, .. } = &hook.auth else {
            let call = senders::Call::default();
            if let Err(refusal) = self.wait_for_rate_of(&hook) {
                return early(refusal.into(), &call);
            }
            let (bytes, _room) = match self.plain_body(&head.headers, body, hook.max_body).await {
                Ok(read) => read,
                Err(refused) => return early(refused, &call),
            };
            return self.noted(&hook, head, bytes, call).await;
        };
        let incoming = |body| Incoming {
            headers: &head.headers,
            body,
            query: head.uri.query(),
            public_url: hook.public_url.as_deref(),
        };
        let unbelieved = |why: senders::Refused| {
            tracing::debug!(hook = hook.slug, %why, "a call of a hook is not believed");
            self.0.call_log.count_unbelieved(&hook);
            self.unauthorized(peer)
        };
        // Nobody's body is read who shows no proof at all.
        if let Err(why) = declared::verify(&hook, scheme, incoming(b""), clock::now())
            && (is_hopeless(&why) || scheme.is_in_the_headers(&head.headers))
        {
            return Err(unbelieved(why));
        }
        // What is signed has to be read before it is known whose it is: until then a body that is too long, too slow
        // or encoded is answered like a wrong signature, and one that is a little too long is read to its end.
        let (bytes, _room) = match self.body(&head.headers, body, hook.max_body + READ_AWAY).await {
            Ok(read) => read,
            Err(refused) if refused.status == StatusCode::SERVICE_UNAVAILABLE => return Err(refused),
            Err(_) => return Err(unbelieved(senders::Refused::NoMatch)),
        };
        let verified = declared::verify(&hook, scheme, incoming(&bytes), clock::now()).map_err(unbelieved)?;
        let fits = is_plain(&head.headers).and_then(|()| match bytes.len() {
            length if length > hook.max_body => Err(Refusal::PayloadTooLarge.into()),
            _ => Ok(()),
        });
        if let Err(refused) = fits {
            return early(refused, &senders::Call::default());
        }
        match verified {
            Verified::Challenge(answer) => {
                let noted = note(&hook, head, clock::now(), Some(&bytes), &senders::Call::default());
                let answered = Ok(Answered::Challenge(answer));
                self.0.call_log.keep(noted, &answered);
                answered
            }
            Verified::Call(call) => self.noted(&hook, head, bytes, call).await,
        }
    }

    /// The rate is the file's of this moment.
    fn wait_for_rate_of(&self, hook: &Hook) -> Result<(), Refusal> {
        let caller = Caller::Hook(hook.slug.clone());
        self.gate().bound(&caller, hook.flow.bound.rate);
        self.wait_for_rate(Some(&caller))
    }

    /// A call whose sender is believed: it is remembered, whatever it is answered.
    async fn noted(
        &self,
        hook: &Arc<Hook>,
        head: &Head,
        bytes: Vec<u8>,
        call: senders::Call,
    ) -> Result<Answered, Refused> {
        let noted = note(hook, head, clock::now(), Some(&bytes), &call);
        let answered = self.call(hook, head, bytes, call).await;
        self.0.call_log.keep(noted, &answered);
        answered
    }

    /// What a call is answered whose sender is believed.
    async fn call(
        &self,
        hook: &Arc<Hook>,
        head: &Head,
        bytes: Vec<u8>,
        call: senders::Call,
    ) -> Result<Answered, Refused> {
        // With the listener's secret it was asked before the body was read, which took its time.
        self.wait_for_rate_of(hook)?;
        let key = match &call.delivery_id {
            Some(id) => inbound::idempotency_key(id.as_bytes()),
            None => idempotency_key(&head.headers)?,
        };
        let key = key.or_else(|| hook.dedupes_by_body.then(|| body_key(&bytes)).flatten());
        let (filling, headers) = (Arc::clone(hook), head.headers.clone());
        let (query, event) = (head.uri.query().map(str::to_owned), call.event.clone());
        let fill = move || {
            let sent =
                Sent { headers: &headers, query: query.as_deref(), body: &bytes, event: event.as_deref() };
            declared::fill(&filling, sent, &Uuid::new_v4().simple().to_string())
        };
        // A large payload takes a while, and others wait for this thread.
        let filled = tokio::task::spawn_blocking(fill).await.map_err(|error| {
            tracing::error!(%error, hook = hook.slug, "a payload could not be read");
            Refused::other(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        })?;
        let (runs, route, caller) = (&self.0.runs, head.uri.path(), Caller::Hook(hook.slug.clone()));
        match filled? {
            Filled::Ignored => Ok(Answered::Ignored(call.accepted)),
            Filled::Message { text, subject } => {
                let request = runs.request_of_hook(&hook.slug, &hook.run, text);
                let meeting = subject.zip(hook.flow.rule);
                let accepting = runs.accept_of_hook(request, meeting, route, key);
                let (run, outcome) = self.admit(&caller, accepting).await?;
                Ok(Answered::Accepted { run, outcome, answer: call.accepted })
            }
            Filled::Notice(text) => {
                let telling = runs.tell_of_hook(&hook.slug, &text, route, key);
                Ok(Answered::Told { outcome: self.admit(&caller, telling).await?, answer: call.accepted })
            }
        }
    }
}

/// Whether no body could mend it.
fn is_hopeless(why: &senders::Refused) -> bool {
    use senders::Refused as R;
    matches!(why, R::NoSecret | R::NoPublicUrl | R::Missing(_) | R::Doubled(_) | R::Unreadable(_))
}

fn not_found(slug: &str) -> Refused {
    let shown = ringback_model::escape::escaped_and_cut(slug, SHOWN_CHARS);
    let body = serde_json::json!({ "error": format!("webhook not found: {shown}") }).to_string();
    Refused { status: StatusCode::NOT_FOUND, body, retry_after: None }
}

fn body_key(bytes: &[u8]) -> Option<IdempotencyKey> {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    inbound::idempotency_key(hash.as_bytes())
}
