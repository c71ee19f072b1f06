"""Judges requests with the snippet of the user documentation.

Usage: python judge_documented.py DOCS standard|lazyagent
Reads JSON lines {"secret", "headers", "body"} and prints "ok" or "bad: why" for each.
"""

import json
import sys
import time

sys.path.insert(0, sys.argv[1])
import verify_webhook  # noqa: E402

for line in sys.stdin:
    case = json.loads(line)
    secret, headers, body = case["secret"], case["headers"], case["body"].encode()
    if sys.argv[2] == "standard":
        good = verify_webhook.verify_standard(secret, headers, body, time.time())
    else:
        good = verify_webhook.verify_lazyagent(secret, headers, body)
    print("ok" if good else "bad: not verified")
