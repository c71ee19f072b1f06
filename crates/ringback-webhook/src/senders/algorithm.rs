//! The hashes, the HMACs and the spellings of bytes that senders use.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use ringback_model::Secret;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

use crate::sign::LENIENT;

/// The hash below an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 20 bytes; only for senders that know no better.
    Sha1,
    /// 32 bytes.
    #[default]
    Sha256,
    /// 64 bytes.
    Sha512,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Two digits a byte, of either case.
    #[default]
    Hex,
    /// Padded or not.
    Base64,
    /// With `-` and `_`, padded or not.
    Base64Url,
}

const LENIENT_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Algorithm {
    /// Whether one of the signatures is an HMAC over the parts in a row under one of the secrets. All of them are
    /// tried, whichever fits. Without a secret one HMAC is made all the same, and nothing fits.
    pub(super) fn fits(self, secrets: &[Secret], parts: &[&[u8]], signatures: &[Vec<u8>]) -> bool {
        if secrets.is_empty() {
            self.mac(&[], parts);
        }
        let mut found = Choice::from(0);
        for secret in secrets {
            let right = self.mac(secret.reveal().as_bytes(), parts);
            for given in signatures {
                found |= right.ct_eq(given);
            }
        }
        found.into()
    }

    pub(super) fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Algorithm::Sha1 => mac::<Hmac<Sha1>>(key, parts),
            Algorithm::Sha256 => mac::<Hmac<Sha256>>(key, parts),
            Algorithm::Sha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }
}

impl Encoding {
    /// The bytes as they are written.
    pub(super) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(bytes),
            Encoding::Base64 => STANDARD.encode(bytes),
            Encoding::Base64Url => URL_SAFE.encode(bytes),
        }
    }

    /// The bytes, or `None` when the text is not so written.
    pub(super) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => LENIENT.decode(text).ok(),
            Encoding::Base64Url => LENIENT_URL.decode(text).ok(),
        }
    }
}

/// Whether the text is one of the secrets. Hashes are compared, so that no length shows in the time it takes.
pub(super) fn is_one_of(text: &[u8], secrets: &[Secret]) -> bool {
    let given = Sha256::digest(text);
    let mut found = Choice::from(0);
    for secret in secrets {
        found |= given.ct_eq(&Sha256::digest(secret.reveal()));
    }
    found.into()
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC is defined for a key of any length")]
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}
