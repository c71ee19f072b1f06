//! What Twilio signs: the URL as it sees it, and the fields of the form.

use ringback_model::Timestamp;
use ringback_webhook::senders::{Call, Incoming, Refused, Verified};

use super::samples::{PUBLIC_URL, headers, scheme};

fn check(
    public_url: Option<&str>,
    query: Option<&str>,
    body: &[u8],
    signature: &str,
) -> Result<Call, Refused> {
    let form = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
    let headers = headers(&[("x-twilio-signature", signature), form]);
    let incoming = Incoming { headers: &headers, body, query, public_url };
    match scheme("twilio", &["12345"]).verify(&incoming, Timestamp::from_millis(0))? {
        Verified::Call(call) => Ok(call),
        other => panic!("{other:?}"),
    }
}

/// twilio/twilio-python, test_request_validator.py.
const BODY: &[u8] =
    b"CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309";
const QUERY: Option<&str> = Some("foo=1&bar=2");

#[test]
fn the_url_is_signed_with_the_port_or_without_it() {
    for (url, signature) in [
        ("https://mycompany.com/myapp.php", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:1234/myapp.php", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("http://mycompany.com:1234/myapp.php", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ("https://mycompany.com/myapp.php", "kvajT1Ptam85bY51eRf/AJRuM3w="),
        ("http://mycompany.com/myapp.php", "0ZXoZLH/DfblKGATFgpif+LLRf4="),
        ("https://mycompany.com/myapp.php#rc=3", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
    ] {
        assert!(check(Some(url), QUERY, BODY, signature).is_ok(), "{url}");
        assert_eq!(check(Some(url), Some("foo=1"), BODY, signature), Err(Refused::NoMatch));
    }
}

#[test]
fn fields_of_one_name_are_sorted_too_and_counted_once() {
    let signature = "IK+Dwps556ElfBT0I3Rgjkr1wJU=";
    for body in [
        &b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234"[..],
        b"Digits=1234&Digits=5678&Digits=5678&SidAccount=AC123&Sid=CA123",
    ] {
        assert!(check(Some(PUBLIC_URL), QUERY, body, signature).is_ok());
    }
}

#[test]
fn without_its_public_url_the_hook_believes_nobody() {
    let verdict = check(None, QUERY, BODY, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    assert_eq!(verdict, Err(Refused::NoPublicUrl));
    assert!(scheme("twilio", &["12345"]).needs_public_url());
    assert!(!scheme("github", &["12345"]).needs_public_url());
}

#[test]
fn a_body_that_says_it_is_no_form_needs_its_hash_in_the_url() {
    let headers = headers(&[
        ("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("content-type", "application/json"),
    ]);
    let incoming = Incoming { headers: &headers, body: BODY, query: QUERY, public_url: Some(PUBLIC_URL) };
    let verdict = scheme("twilio", &["12345"]).verify(&incoming, Timestamp::from_millis(0));
    assert_eq!(verdict, Err(Refused::NoMatch));
}

#[test]
fn a_message_is_one_delivery_and_each_of_its_states_another() {
    // Signed by Node.
    for (body, signature, id) in [
        ("Body=hi&MessageSid=SM1", "MMgIMpwG+NFS7nxryCsNmxf4cTY=", "SM1"),
        ("MessageSid=SM1&MessageStatus=sent", "K5Yzw9cyIk6vhvPsG7Q5G9442VA=", "SM1:sent"),
    ] {
        let call = check(Some(PUBLIC_URL), None, body.as_bytes(), signature).unwrap();
        assert_eq!(call.delivery_id.as_deref(), Some(id));
    }
}

#[test]
fn a_form_with_more_fields_than_anybody_sends_is_refused() {
    let body = "a=1&".repeat(1001);
    // Signed by Python; the same field a thousand times is one field.
    let signature = "VhJLj1Z+QOhif+BMD62vyJm37fQ=";
    assert!(check(Some(PUBLIC_URL), None, &body.as_bytes()[4..], signature).is_ok());
    assert_eq!(check(Some(PUBLIC_URL), None, body.as_bytes(), signature), Err(Refused::NoMatch));
}
