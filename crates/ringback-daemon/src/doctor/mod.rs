//! What is found, what is missing, and the command that mends it.
//!
//! [`gather`] looks at the machine and changes nothing; [`judge`] is a pure function of what it saw. Does not know how
//! findings are printed, and mends nothing itself.

mod facts;
mod gather;
mod judge;
mod watches;

use serde::Serialize;

pub use facts::Facts;
pub use gather::gather;
pub use judge::judge;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Works, but not all that could; or is not there, and need not be.
    Note,
    /// Does not work.
    Broken,
}

/// One thing that was looked at. As JSON: `{"check", "mark": "ok" | "note" | "broken", "what", "mend": TEXT | null}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, one word.
    pub check: &'static str,
    /// How bad it is.
    pub mark: Mark,
    /// What was found.
    pub what: String,
    /// The command or the change that mends it.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, mark: Mark::Ok, what: what.into(), mend: None }
    }

    fn note(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { check, mark: Mark::Note, what: what.into(), mend: Some(mend.into()) }
    }

    fn broken(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { check, mark: Mark::Broken, what: what.into(), mend: Some(mend.into()) }
    }
}
