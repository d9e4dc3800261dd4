// A weights file of seran's: a plain ONNX model that carries its card and a SHA-256 of all before it (seran.weights.file).
import { BadInput } from "./errors.js";
import { sha256 } from "./files.js";

const text = (bytes) => new TextDecoder().decode(bytes);
const entry = (key, ...before) => Uint8Array.of(...before, 10, key.length, ...new TextEncoder().encode(key), 18);
const SEAL = Uint8Array.of(...entry("seran.sha256", 0x72, 80), 64);  // what the digest follows
const CARD = entry("seran.card");

function lastIndex(bytes, wanted) {
  for (let at = bytes.length - wanted.length; at >= 0; at--) {
    if (wanted.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

// The verified card and the digest that the file is known by.
export async function read(name, bytes) {
  const end = lastIndex(bytes, SEAL), body = bytes.subarray(0, Math.max(end, 0));
  const digest = await sha256(body), stated = text(bytes.subarray(end + SEAL.length, end + SEAL.length + 64));
  if (end < 0 || stated !== digest) throw new BadInput(`${name}: the weights are damaged; load the page again`);
  let at = lastIndex(body, CARD) + CARD.length;
  while (body[at] & 128) at++;  // the length of what follows to the end
  return { name, digest, card: JSON.parse(text(body.subarray(at + 1))) };
}
