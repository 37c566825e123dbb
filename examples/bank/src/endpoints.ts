import * as ccfapp from "@microsoft/ccf-app";
import { ccf } from "@microsoft/ccf-app/global.js";
import * as accounts from "./accounts";
import { recordedIn, record, Transfer } from "./transfers";
import { exercise } from "./cryptography";

type Reply = ccfapp.Response<any>;

function answering(work: () => Reply): Reply {
  try {
    return work();
  } catch (error) {
    if (error instanceof accounts.Refusal) {
      return { statusCode: error.statusCode, body: { message: error.message } };
    }
    throw error;
  }
}

export function openAccount(request: ccfapp.Request<{ balance: number }>): Reply {
  return answering(() => {
    const account = accounts.open(request.params.owner, request.body.json().balance);
    return { statusCode: 201, body: account };
  });
}

export function readAccount(request: ccfapp.Request): Reply {
  return answering(() => ({
    body: {
      ...accounts.find(request.params.owner),
      changedAt: accounts.lastChange(request.params.owner),
    },
  }));
}

export function closeAccount(request: ccfapp.Request): Reply {
  return answering(() => {
    accounts.close(request.params.owner);
    return { statusCode: 204 };
  });
}

export function total(): Reply {
  return { body: accounts.total() };
}

function transfer(order: Transfer): Reply {
  return answering(() => {
    accounts.move(order.from, order.to, order.amount);
    return { body: { claim: record(order) } };
  });
}

export function postTransfer(request: ccfapp.Request<Transfer>): Reply {
  return transfer(request.body.json());
}

// The order is what the participant signed, not what the connection says.
export function postSignedTransfer(request: ccfapp.Request): Reply {
  const caller = request.caller as ccfapp.UserCOSESign1AuthnIdentity;
  return transfer(ccf.bufToJsonCompatible(caller.cose.content) as Transfer);
}

export function proveTransfer(): Reply {
  const past = ccf.historicalState!;
  const found = recordedIn(past.kv);
  if (found === undefined) {
    return { statusCode: 404, body: { message: "That transaction holds no transfer." } };
  }
  return { body: { transfer: found, transactionId: past.transactionId, receipt: past.receipt } };
}

export function statement(request: ccfapp.Request): Reply {
  const query = new Map(
    request.query.split("&").map((pair) => pair.split("=") as [string, string]),
  );
  const from = Number(query.get("from"));
  const to = Number(query.get("to"));
  const states = ccf.historical.getStateRange(from * 100_000 + to, from, to, 60);
  if (states === null) {
    return { statusCode: 202, headers: { "retry-after": "1" }, body: "Being fetched" };
  }
  const transfers = states
    .map((state) => ({ transactionId: state.transactionId, transfer: recordedIn(state.kv) }))
    .filter((entry) => entry.transfer !== undefined);
  return { body: { transfers } };
}

export function whoAmI(request: ccfapp.Request): Reply {
  return { body: request.caller };
}

export function commitStatus(): Reply {
  const last = ccf.consensus.getLastCommittedTxId();
  return {
    body: {
      last,
      status: ccf.consensus.getStatusForTxId(last.view, last.seqno),
      view: ccf.consensus.getViewForSeqno(last.seqno),
    },
  };
}

export function cryptography(): Reply {
  return { body: exercise() };
}

// Awaited by Coco; CCF would answer with an empty 200.
export async function later(request: ccfapp.Request): Promise<Reply> {
  const text = await Promise.resolve(request.body.text());
  return { body: { text } };
}
