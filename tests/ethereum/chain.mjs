// Where the node is, who has money on it, and the token that the suites deploy.
// The environment is set by test_javascript.py.

import { readFileSync } from "node:fs";

export const url = process.env.ETHEREUM_URL;
export const webSocketUrl = url.replace(/^http/, "ws");

/** Keys of accounts that the genesis has funded. No two suites share one. */
export const keys = JSON.parse(process.env.ETHEREUM_KEYS);

export const token = JSON.parse(readFileSync(new URL("dist/Token.json", import.meta.url), "utf8"));

/** Waits until `condition()` is true, for what arrives by itself. */
export async function eventually(condition, seconds = 20) {
  const until = Date.now() + 1000 * seconds;
  while (!(await condition())) {
    if (Date.now() > until) throw new Error(`not within ${seconds} s: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
