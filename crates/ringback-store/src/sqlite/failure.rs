//! From SQLite's errors to the store's.

use rusqlite::{Error as Sql, ErrorCode};

use crate::Error;

/// Says what a caller can do about it.
pub(super) fn classify(error: Sql) -> Error {
    let text = error.to_string();
    match error {
        Sql::SqliteFailure(failure, _) | Sql::SqlInputError { error: failure, .. } => match failure.code {
            ErrorCode::DiskFull => Error::Full,
            ErrorCode::ReadOnly => Error::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Error::Locked
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Error::Corrupt(text),
            ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => {
                Error::Refused(text)
            }
            _ => Error::Io(text),
        },
        Sql::ToSqlConversionFailure(_) | Sql::NulError(_) => Error::Refused(text),
        Sql::FromSqlConversionFailure(..)
        | Sql::IntegralValueOutOfRange(..)
        | Sql::InvalidColumnType(..)
        | Sql::Utf8Error(..)
        | Sql::QueryReturnedNoRows => Error::Corrupt(text),
        _ => Error::Io(text),
    }
}
