import * as ccfapp from "@microsoft/ccf-app";

export interface Account {
  owner: string;
  balance: number;
}

// Private: encrypted on the ledger.
const accounts = ccfapp.typedKv("accounts", ccfapp.string, ccfapp.json<Account>());

export class Refusal extends Error {
  constructor(
    readonly statusCode: number,
    message: string,
  ) {
    super(message);
  }
}

export function open(owner: string, balance: number): Account {
  if (!Number.isSafeInteger(balance) || balance < 0) {
    throw new Refusal(400, "A balance is a whole number that is not negative.");
  }
  if (accounts.has(owner)) {
    throw new Refusal(409, `${owner} already has an account.`);
  }
  const account = { owner, balance };
  accounts.set(owner, account);
  return account;
}

export function find(owner: string): Account {
  const account = accounts.get(owner);
  if (account === undefined) {
    throw new Refusal(404, `${owner} has no account.`);
  }
  return account;
}

export function lastChange(owner: string): number | undefined {
  return accounts.getVersionOfPreviousWrite(owner);
}

export function move(from: string, to: string, amount: number): void {
  if (!Number.isSafeInteger(amount) || amount <= 0) {
    throw new Refusal(400, "An amount is a positive whole number.");
  }
  const source = find(from);
  const target = find(to);
  if (source.balance < amount) {
    throw new Refusal(409, `${from} has only ${source.balance}.`);
  }
  if (from === to) {
    return;
  }
  accounts.set(from, { ...source, balance: source.balance - amount });
  accounts.set(to, { ...target, balance: target.balance + amount });
}

export function close(owner: string): void {
  find(owner);
  accounts.delete(owner);
}

export function total(): { accounts: number; balance: number } {
  let balance = 0;
  accounts.forEach((account) => {
    balance += account.balance;
  });
  return { accounts: accounts.size, balance };
}
