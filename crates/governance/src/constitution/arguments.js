// Checks of arguments. A check takes a value and its name, and throws a message that says what is
// wrong with it. Checks are values: they combine.

function fail(name, expected) {
  throw new Error(`${name} must be ${expected}`);
}

// All arguments of an action: every one named in `shape` is checked, any other is refused.
function checkArguments(args, shape) {
  checkObject(shape)(args ?? {}, "args");
}

function anything(value, name) {
  if (value === undefined) fail(name, "given");
}

function string(value, name) {
  if (typeof value !== "string") fail(name, "a string");
}

function boolean(value, name) {
  if (typeof value !== "boolean") fail(name, "true or false");
}

function object(value, name) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) fail(name, "an object");
}

function optional(check) {
  return (value, name) => {
    if (isGiven(value)) check(value, name);
  };
}

// For what is read elsewhere, by a reader that takes no null.
function absentOr(check) {
  return (value, name) => {
    if (value !== undefined) check(value, name);
  };
}

function integer(lowest, highest) {
  return (value, name) => {
    const fits = Number.isInteger(value) && value >= lowest && value <= highest;
    if (!fits) fail(name, `an integer from ${lowest} to ${highest}`);
  };
}

function oneOf(...choices) {
  return (value, name) => {
    if (!choices.includes(value)) fail(name, `one of ${choices.join(", ")}`);
  };
}

function listOf(check) {
  return (value, name) => {
    if (!Array.isArray(value)) fail(name, "a list");
    value.forEach((item, index) => check(item, `${name}[${index}]`));
  };
}

function nonEmptyListOf(check) {
  const list = listOf(check);
  return (value, name) => {
    list(value, name);
    if (value.length === 0) fail(name, "a list with at least one element");
  };
}

// An object with just these fields.
function checkObject(shape) {
  const fields = checkFields(shape);
  return (value, name) => {
    object(value, name);
    for (const field of Object.keys(value)) {
      if (!Object.hasOwn(shape, field)) throw new Error(`${name}.${field} is not an argument`);
    }
    fields(value, name);
  };
}

// An object with these fields, and others that are ignored.
function checkFields(shape) {
  return (value, name) => {
    object(value, name);
    for (const [field, check] of Object.entries(shape)) check(value[field], `${name}.${field}`);
  };
}

function pattern(regex, expected) {
  return (value, name) => {
    string(value, name);
    if (!regex.test(value)) fail(name, expected);
  };
}

const entityId = pattern(/^[0-9a-f]{64}$/, "64 lower-case hex digits");

const hexDigits = pattern(/^([0-9a-f]{2})+$/, "an even number of lower-case hex digits");

function nonEmptyString(value, name) {
  string(value, name);
  if (value.length === 0) fail(name, "a string that is not empty");
}

// One X.509 certificate, PEM.
function certificate(value, name) {
  certificateBundle(value, name);
  const count = value.split("-----BEGIN CERTIFICATE-----").length - 1;
  if (count !== 1) fail(name, "a single PEM certificate");
}

// One or more X.509 certificates, PEM.
function certificateBundle(value, name) {
  string(value, name);
  if (!ccf.crypto.isValidX509CertBundle(value)) fail(name, "PEM certificates (X.509)");
}

// An RSA public key of at least 2048 bits, PEM.
function rsaPublicKey(value, name) {
  string(value, name);
  let modulus;
  try {
    modulus = ccf.crypto.pubRsaPemToJwk(value).n;
  } catch (_) {
    fail(name, "an RSA public key in PEM");
  }
  // Four digits of base64url carry three bytes.
  if (Math.floor((modulus.length * 3) / 4) < 256) fail(name, "an RSA key of at least 2048 bits");
}

// A moment: ASN.1 UTCTime or ISO 8601.
const moment = pattern(
  /^(\d{12}Z?|\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)$/,
  "a date like 260131235959Z or 2026-01-31T23:59:59Z",
);
