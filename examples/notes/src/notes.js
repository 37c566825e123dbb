import { decode, encode, keys } from "./text.js";

const PRIVATE = "notes";
const PUBLIC = "public:notes";

function stored(map, id) {
  const text = map.get(encode(id));
  if (text === undefined) {
    return { statusCode: 404, body: { message: `There is no note ${id}.` } };
  }
  return { body: decode(text) };
}

export function write(request) {
  ccf.kv[PRIVATE].set(encode(request.params.id), request.body.arrayBuffer());
  return { statusCode: 204 };
}

export function read(request) {
  return stored(ccf.kv[PRIVATE], request.params.id);
}

export function remove(request) {
  const key = encode(request.params.id);
  const existed = ccf.kv[PRIVATE].has(key);
  ccf.kv[PRIVATE].delete(key);
  return { body: { existed } };
}

export function list() {
  return { body: keys(ccf.kv[PRIVATE]) };
}

export function clear() {
  ccf.kv[PRIVATE].clear();
  return { statusCode: 204 };
}

export function publish(request) {
  ccf.kv[PUBLIC].set(encode(request.params.id), request.body.arrayBuffer());
  return { statusCode: 204 };
}

export function readPublic(request) {
  return stored(ccf.kv[PUBLIC], request.params.id);
}

export function readPast(request) {
  const past = ccf.historicalState;
  const found = stored(past.kv[PRIVATE], request.params.id);
  return { ...found, headers: { "x-past-transaction": past.transactionId } };
}

let counter = 0;

export function count() {
  counter += 1;
  return { body: { counter } };
}

export function throwError() {
  ccf.kv[PRIVATE].set(encode("never"), encode("written"));
  throw new Error("on purpose");
}

export function loopForever() {
  for (;;) {}
}

export function fillHeap() {
  const parts = [];
  for (;;) {
    parts.push(new ArrayBuffer(1 << 20));
  }
}

export function failingStatus() {
  ccf.kv[PRIVATE].set(encode("failed"), encode("not written"));
  return { statusCode: 418, body: "teapot" };
}

export function writeGovernance() {
  ccf.kv["public:ccf.gov.users.info"].set(encode("x"), encode("y"));
  return { statusCode: 204 };
}
