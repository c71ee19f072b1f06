// Judges requests with the official JavaScript library.
//
// Usage: node judge.mjs NODE_MODULES
// Reads JSON lines {"secret", "headers", "body"} and prints "ok" or "bad: why" for each.

import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.argv[2], "judge.mjs"));
const { Webhook } = require("standardwebhooks");

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    const webhook = secret.startsWith("whsec_")
      ? new Webhook(secret)
      : new Webhook(new TextEncoder().encode(secret), { format: "raw" });
    webhook.verify(body, headers);
    console.log("ok");
  } catch (error) {
    console.log(`bad: ${error.name}: ${error.message}`);
  }
}
