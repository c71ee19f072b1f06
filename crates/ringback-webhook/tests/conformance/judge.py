"""Judges requests with the official Python library.

Reads JSON lines {"secret", "headers", "body"} and prints "ok" or "bad: why" for each.
"""

import json
import sys

from standardwebhooks import Webhook

for line in sys.stdin:
    case = json.loads(line)
    secret = case["secret"]
    try:
        # The library decodes text and takes bytes as they are.
        webhook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
        webhook.verify(case["body"], case["headers"])
        print("ok")
    except Exception as error:
        print(f"bad: {type(error).__name__}: {error}")
