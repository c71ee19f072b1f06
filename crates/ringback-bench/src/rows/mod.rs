//! The rows, one file each.

mod append;
mod burst;
mod fan_out;
mod history;
mod idle;
mod in_hand;
mod intake;
mod isolation;
mod many;
mod pending;
mod stream;

use anyhow::Result;

use crate::row::{Bench, Row};

/// A row that can be measured.
pub struct Entry {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    pub(crate) make: fn(&Bench) -> Result<Box<dyn Row>>,
}

/// Every row, in the order in which they are measured.
pub const ROWS: &[Entry] = &[
    Entry { name: "intake", about: "POST /hook/agent, durable before the answer", make: intake::make },
    Entry { name: "burst", about: "many events at once to one endpoint", make: burst::make },
    Entry { name: "fan-out", about: "one stream of events to many endpoints", make: fan_out::make },
    Entry { name: "in-hand", about: "from a call of the API to the receiver", make: in_hand::make },
    Entry { name: "append", about: "from a session file to the receiver", make: append::make },
    Entry {
        name: "history",
        about: "a first look at 2 GB of session files, and a second start",
        make: history::make,
    },
    Entry { name: "idle", about: "what 500 sessions and 20 endpoints cost at rest", make: idle::make },
    Entry { name: "pending", about: "deliveries that wait, and a start with them", make: pending::make },
    Entry { name: "many", about: "what an event costs beside many sessions", make: many::make },
    Entry { name: "stream", about: "200 clients of the event stream", make: stream::make },
    Entry { name: "isolation", about: "what dead endpoints cost healthy ones", make: isolation::make },
];
