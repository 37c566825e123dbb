const records = () => ccf.kv["records"];

export function write(request) {
  records().set(ccf.strToBuf(request.params.key), request.body.arrayBuffer());
  return { statusCode: 204 };
}

export function read(request) {
  const value = records().get(ccf.strToBuf(request.params.key));
  return value === undefined ? { statusCode: 404 } : { body: value };
}
