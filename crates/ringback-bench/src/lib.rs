//! What the documentation claims of ringback's speed, measured on the program as it is released.
//!
//! Owns: loads, receivers and clocks around a real `ringback up`, and beside each of them a ceiling: the least that a
//! program has to do for the same, on the same machine in the same run. A machine's noise is in both, so that their
//! ratio says more than either. Knows nothing of the program's inside: configuration, files and HTTP are all it uses.
//!
//! [`ROWS`] names what can be measured, [`Bench::measure`] measures one of them, [`table`] shows it, and [`baseline`]
//! tells whether it is worse than it was.

pub mod baseline;
mod ceiling;
mod clock;
mod daemon;
mod process;
mod row;
mod rows;
mod sessions;
mod sink;
mod statistics;
pub mod table;
mod wire;

pub use row::{Bench, Better, Claim, Floor, Measured, Size, Unit};
pub use rows::ROWS;
pub use statistics::Spread;
