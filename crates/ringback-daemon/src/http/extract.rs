//! What the handlers take out of a request: as axum does, but what cannot be taken is refused in the API's own shape.

use std::error::Error as _;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Error;

/// The query, by names.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(rejected) => {
                // The source names the key and what is wrong with it; what stands before it is axum's.
                let why = rejected.source().map_or_else(|| rejected.body_text(), ToString::to_string);
                Err(Error::BadRequest(format!("invalid query: {why}")))
            }
        }
    }
}

/// The variable part of the path, decoded.
pub(super) struct Path(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let taken = axum::extract::Path::from_request_parts(parts, state).await;
        let axum::extract::Path(part) = taken.map_err(|_| {
            Error::BadRequest("invalid path: its percent-encoding must decode to UTF-8".to_owned())
        })?;
        Ok(Path(part))
    }
}

/// The whole body, within its bound.
pub(super) struct Body(pub(super) bytes::Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match bytes::Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Body(bytes)),
            Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Error::TooLarge),
            Err(_) => Err(Error::BadRequest("the body ended early".to_owned())),
        }
    }
}
