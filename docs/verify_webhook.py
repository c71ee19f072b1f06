"""Verify webhooks from ringback. Python 3.8 or later, standard library only.

Run this file to try it: RINGBACK_SECRET=... python3 verify_webhook.py
"""

import base64
import binascii
import hashlib
import hmac

TOLERANCE_SECONDS = 5 * 60


def verify_standard(secret, headers, body, now):
    """Whether id, time and body are from the holder of the secret, and recent.

    secret: the text as configured; headers: a mapping, names in any case;
    body: the raw bytes as received; now: Unix time in seconds.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    event_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit()):
        return False
    if abs(int(now) - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{event_id}.{timestamp}.".encode() + body
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(digest)
    # During a rotation there are several signatures; one that fits is enough.
    given = headers.get("webhook-signature", "").split(" ")
    return any([hmac.compare_digest(expected, one.encode()) for one in given])


def verify_lazyagent(secret, headers, body):
    """Whether the body is from the holder of the secret. Says nothing about when it was sent."""
    headers = {name.lower(): value for name, value in headers.items()}
    expected = "sha256=" + hmac.new(_key(secret), body, hashlib.sha256).hexdigest()
    given = headers.get("x-lazyagent-signature", "")
    return hmac.compare_digest(expected.encode(), given.encode())


def _key(secret):
    """After "whsec_" comes base64, padded or not; any other secret is its raw bytes."""
    if secret.startswith("whsec_"):
        encoded = secret[len("whsec_"):]
        try:
            decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if decoded:
            return decoded
    return secret.encode()


if __name__ == "__main__":
    import json
    import os
    import time
    from http.server import BaseHTTPRequestHandler, HTTPServer

    SECRET = os.environ["RINGBACK_SECRET"]
    PORT = int(os.environ.get("PORT", "8080"))
    seen = set()  # of a real receiver: on disk, and bounded

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if not verify_standard(SECRET, self.headers, body, time.time()):
                self.answer(401)
                return
            self.answer(204)
            # An event may come more than once; its id is always the same.
            event_id = self.headers["webhook-id"]
            if event_id not in seen:
                seen.add(event_id)
                event = json.loads(body)
                print(event["agent"], event["session_id"], event["from"], "->", event["to"], flush=True)

        def answer(self, status):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", PORT), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
