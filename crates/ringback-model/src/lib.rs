//! The vocabulary and the rules of ringback.
//!
//! Owns: what a session, an activity, an event, an endpoint and a delivery *are*, and every rule that decides
//! between them. Rules are pure functions of (facts, now) or (state, event, now).
//!
//! Deliberately absent: tokio, files, sockets, SQL and clocks. Nothing here can block, and time is always an
//! argument.

pub mod activity;
pub mod budget;
pub mod delivery;
pub mod endpoint;
pub mod escape;
pub mod event;
pub mod failing;
pub mod flow;
pub mod hook_call;
pub mod ids;
pub mod inbound;
pub mod money;
pub mod ping;
pub mod prompt;
pub mod queue;
pub mod rate;
pub mod resume;
pub mod run;
pub mod session;
pub mod time;
pub mod tool;
pub mod transition;
pub mod updates;

pub use activity::{Activity, Reason, Rules, Verdict};
pub use delivery::{Attempt, Delivery, DeliveryState, Failure, Outcome};
pub use endpoint::{Endpoint, Format, Secret};
pub use event::Event;
pub use failing::Failing;
pub use ids::{Agent, DeliveryId, EndpointName, EventId, SessionId};
pub use rate::{Pace, Rate};
pub use session::{About, Fact, Facts, Live, LiveStatus, Recorded};
pub use time::Timestamp;
pub use tool::ToolKind;
pub use transition::SessionState;
