// Reading and writing the governed tables.

// The key of a table that holds one value.
const ONLY = new ArrayBuffer(8);

// A governed map by its name without the common prefix.
function governed(name) {
  return ccf.kv[`public:ccf.gov.${name}`];
}

// The JSON value under a key, or undefined.
function read(map, key) {
  const bytes = map.get(key);
  return bytes === undefined ? undefined : ccf.bufToJsonCompatible(bytes);
}

// The JSON value under a key; `what` is named when there is none.
function readExisting(map, key, what) {
  const value = read(map, key);
  if (value === undefined) throw new Error(`${what} does not exist`);
  return value;
}

// Writes JSON with the keys of every object sorted, as the node itself writes it.
function write(map, key, value) {
  map.set(key, ccf.jsonCompatibleToBuf(sorted(value)));
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  const result = {};
  for (const key of Object.keys(value).sort()) {
    if (value[key] !== undefined) result[key] = sorted(value[key]);
  }
  return result;
}

function isGiven(value) {
  return value !== undefined && value !== null;
}

// Actions that change whom or what the service trusts make every other open proposal void: it was
// voted on under other rules.
function dropOtherOpenProposals(proposalId) {
  const infos = governed("proposals_info");
  const dropped = [];
  infos.forEach((bytes, key) => {
    const info = ccf.bufToJsonCompatible(bytes);
    if (info.state === "Open" && ccf.bufToStr(key) !== proposalId) {
      dropped.push([key, { ...info, state: "Dropped" }]);
    }
  });
  for (const [key, info] of dropped) write(infos, key, info);
}
