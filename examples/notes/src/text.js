export function encode(text) {
  return ccf.strToBuf(text);
}

export function decode(buffer) {
  return ccf.bufToStr(buffer);
}

export function keys(map) {
  const found = [];
  map.forEach((_value, key) => found.push(decode(key)));
  return found;
}
