// Confidential records: the map's name has no "public:" prefix, so the ledger holds only ciphertext.
const MAP = "records";

function lookUp(map, request) {
  const value = map.get(ccf.strToBuf(request.params.key));
  if (value === undefined) {
    const message = `There is no record ${request.params.key}.`;
    return { statusCode: 404, body: { error: { code: "ResourceNotFound", message } } };
  }
  return { body: ccf.bufToStr(value) };
}

export function write(request) {
  ccf.kv[MAP].set(ccf.strToBuf(request.params.key), request.body.arrayBuffer());
  return { statusCode: 204 };
}

export function read(request) {
  return lookUp(ccf.kv[MAP], request);
}

export function remove(request) {
  ccf.kv[MAP].delete(ccf.strToBuf(request.params.key));
  return { statusCode: 204 };
}

export function list() {
  const keys = [];
  ccf.kv[MAP].forEach((_, key) => keys.push(ccf.bufToStr(key)));
  return { body: keys };
}

export function readPast(request) {
  const past = ccf.historicalState;
  const found = lookUp(past.kv[MAP], request);
  if (found.statusCode === 404) {
    return found;
  }
  return { body: { value: found.body, transactionId: past.transactionId, receipt: past.receipt } };
}
