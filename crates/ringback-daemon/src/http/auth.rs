//! The API's token from a passphrase, and what a client needs to derive it too.
//!
//! Does not know where passphrase and salt come from, nor which passphrases are allowed.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringback_model::Secret;
use serde_json::{Value, json};
use sha2::Sha256;

use super::App;

const ITERATIONS: u32 = 600_000;
const KEY_LENGTH: usize = 32;

/// PBKDF2-HMAC-SHA256, base64url without padding. Takes a good part of a second of one core, on purpose.
pub(crate) fn derive(passphrase: &Secret, salt: &str) -> Secret {
    let mut key = [0u8; KEY_LENGTH];
    pbkdf2::pbkdf2_hmac::<Sha256>(passphrase.reveal().as_bytes(), salt.as_bytes(), ITERATIONS, &mut key);
    Secret::new(URL_SAFE_NO_PAD.encode(key))
}

/// `GET /api/auth`: how a client makes the token from the passphrase. Public, and the same where the token is
/// random.
pub(super) async fn parameters(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "salt": &*app.salt,
        "iterations": ITERATIONS,
        "key_length": KEY_LENGTH,
        "hash": "SHA-256",
        "encoding": "base64url-no-padding",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vector() {
        let token = derive(&Secret::new("pippo"), "lazyagent-api-v1");
        assert_eq!(token.reveal(), "zqh9_r0QeYpLiLSQGZMYriIWqNZgZOu3Qc_l7wtraV4");
    }
}
