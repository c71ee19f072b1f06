//! Rules of the project, as tests.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tidy;
