//! The judge of signatures: what a receiver computes, written from the contract and sharing no code with the
//! sender (outbound.md, "Request").

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::receiver::Received;

/// Why a request does not carry the signatures it has to carry.
#[derive(Debug, PartialEq, Eq)]
pub struct Unverified(pub String);

impl Received {
    /// Checks all signature headers against the endpoint's secrets, in the order of its configuration: the
    /// `X-Lazyagent-Signature` of the first one, and one `v1` signature of each in `webhook-signature`. Without
    /// secrets, checks that there are none of these headers.
    pub fn verify(&self, secrets: &[&str]) -> Result<(), Unverified> {
        let Some(first) = secrets.first() else { return self.verify_unsigned() };
        let body = &self.message.body;

        let want = format!("sha256={}", hex(&mac(first, &[body])));
        self.verify_header("x-lazyagent-signature", &want)?;

        let id = self.required("webhook-id")?;
        if id != self.required("x-lazyagent-delivery")? {
            return Err(Unverified("webhook-id is not the id of the delivery".to_owned()));
        }
        let timestamp = self.required("webhook-timestamp")?;
        if timestamp.parse::<u64>().is_err() {
            return Err(Unverified(format!("webhook-timestamp is no number of seconds: {timestamp:?}")));
        }
        let want: Vec<String> = secrets
            .iter()
            .map(|secret| {
                let signed: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
                format!("v1,{}", STANDARD.encode(mac(secret, &signed)))
            })
            .collect();
        self.verify_header("webhook-signature", &want.join(" "))
    }

    fn verify_unsigned(&self) -> Result<(), Unverified> {
        for name in ["x-lazyagent-signature", "webhook-id", "webhook-timestamp", "webhook-signature"] {
            if let Some(value) = self.header(name) {
                return Err(Unverified(format!("there is no secret, but {name} says {value:?}")));
            }
        }
        Ok(())
    }

    fn verify_header(&self, name: &str, want: &str) -> Result<(), Unverified> {
        let have = self.required(name)?;
        if have == want { Ok(()) } else { Err(Unverified(format!("{name} is {have:?}, not {want:?}"))) }
    }

    fn required(&self, name: &str) -> Result<&str, Unverified> {
        self.header(name).ok_or_else(|| Unverified(format!("there is no {name}")))
    }
}

fn mac(secret: &str, parts: &[&[u8]]) -> Vec<u8> {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).expect("a whsec_ secret is base64"),
        None => secret.as_bytes().to_vec(),
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::http::Message;

    /// RFC 4231, test case 2.
    #[test]
    fn the_mac_is_that_of_the_published_vector() {
        assert_eq!(
            hex(&mac("Jefe", &[b"what do ya want ", b"for nothing?"])),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    fn received(headers: &[(&str, &str)], body: &str) -> Received {
        Received {
            number: 0,
            method: "POST".to_owned(),
            path: "/".to_owned(),
            at: Instant::now(),
            message: Message {
                headers: headers.iter().map(|(n, v)| (String::from(*n), String::from(*v))).collect(),
                body: body.as_bytes().to_vec(),
            },
        }
    }

    /// The example of the Standard Webhooks reference libraries.
    #[test]
    fn a_request_is_verified_whole_and_a_changed_byte_is_seen() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = "{\"test\": 2432232314}";
        let lazyagent = format!("sha256={}", hex(&mac(secret, &[body.as_bytes()])));
        let headers = [
            ("X-Lazyagent-Delivery", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("X-Lazyagent-Signature", lazyagent.as_str()),
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        assert_eq!(received(&headers, body).verify(&[secret]), Ok(()));
        assert!(received(&headers, "{\"test\": 2432232315}").verify(&[secret]).is_err());
        assert!(received(&headers, body).verify(&["another secret"]).is_err());
        assert!(received(&headers, body).verify(&[secret, "another secret"]).is_err());
        assert!(received(&headers, body).verify(&[]).is_err());
        assert_eq!(received(&[], body).verify(&[]), Ok(()));
    }
}
