import * as ccfapp from "@microsoft/ccf-app";
import { ccf, KvMaps } from "@microsoft/ccf-app/global.js";

export interface Transfer {
  from: string;
  to: string;
  amount: number;
}

const MAP = "transfers";
const LATEST = "latest";

function view(kv: KvMaps) {
  return ccfapp.typedKv(kv[MAP], ccfapp.string, ccfapp.json<Transfer>());
}

// The same key every time: the ledger keeps every version, and a historical read finds each.
export function record(transfer: Transfer): string {
  const text = JSON.stringify(transfer);
  view(ccf.kv).set(LATEST, transfer);
  const digest = ccf.crypto.digest("SHA-256", ccf.strToBuf(text));
  ccf.rpc.setClaimsDigest(digest);
  return text;
}

export function recordedIn(kv: KvMaps): Transfer | undefined {
  return view(kv).get(LATEST);
}
