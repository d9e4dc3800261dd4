// Voxels as they are stored, as float32 in the scan's own units; and order statistics of many of them.
import { BadInput, COMMAND, counted } from "./errors.js";

const MAXIMUM = 1e30;  // beyond is damage: sums of such intensities leave the range of float32
const APART = 4096;  // steps of float32 that intensities must span, as many as scanners tell apart
const TINY = 2 ** -126;  // below, float32 loses digits

// Types by their code in NIfTI; `exact` where float32 holds each of their numbers.
export const TYPES = {
  2: { array: Uint8Array, exact: true },
  4: { array: Int16Array, exact: true },
  8: { array: Int32Array, exact: false },
  16: { array: Float32Array, exact: true },
  64: { array: Float64Array, exact: false },
  256: { array: Int8Array, exact: true },
  512: { array: Uint16Array, exact: true },
  768: { array: Uint32Array, exact: false },
};

// Turn the bytes of each number round, in place.
export function swapped(bytes, size) {
  for (let at = 0; at < bytes.length; at += size) bytes.subarray(at, at + size).reverse();
  return bytes;
}

// The numbers in some bytes, which are copied.
export function decoded(bytes, type, little) {
  const copy = bytes.slice(), size = type.array.BYTES_PER_ELEMENT;
  if (!little && size > 1) swapped(copy, size);
  return new type.array(copy.buffer);
}

// As float32 in the scan's own units; `BadInput` where they are no intensities, or float32 does not tell them apart.
export function scaled(name, stored, type, slope = 1, intercept = 0) {
  const data = new Float32Array(stored.length), plain = slope === 1 && intercept === 0;
  let bad = 0, changed = false, low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
  for (let i = 0; i < stored.length; i++) {
    const value = plain ? stored[i] : stored[i] * slope + intercept;
    data[i] = value;
    if (!(Math.abs(data[i]) <= MAXIMUM)) bad++;
    else if (!plain || !type.exact) {
      changed ||= data[i] !== value;
      low = Math.min(low, value); high = Math.max(high, value);
      first = Math.min(first, stored[i]); last = Math.max(last, stored[i]);
    }
  }
  if (bad) {
    const many = `${counted(bad, "voxel")} ${bad > 1 ? "are" : "is"} NaN, infinite or beyond 1e30`;
    throw new BadInput(`${name}: ${many}; ${COMMAND}, and say what takes ${bad > 1 ? "their" : "its"} place with --fill 0`);
  }
  const span = (last - first) * Math.abs(slope), most = Math.max(Math.abs(low), Math.abs(high));
  const rounding = stored instanceof Float64Array || stored instanceof Float32Array ? 1e-12 * most : 0;
  const alike = Math.fround(low) === Math.fround(high);
  if (rounding < span && span < APART * Math.max(step(most), TINY) && (changed || alike)) {
    throw new BadInput(`${name}: expected intensities that float32 tells apart, got ${low} to ${high}; ` +
      "subtract the offset that they share, or scale them up");
  }
  return data;
}

// From a number in float32 to the next one.
function step(value) {
  const bits = new Uint32Array(new Float32Array([value]).buffer);
  const [here] = new Float32Array(bits.buffer);
  bits[0]++;
  return new Float32Array(bits.buffer)[0] - here;
}

// The k-th smallest number, from 0 on, for each k that is asked for: by counting, so that nothing is copied or sorted.
export function ranked(data, ranks) {
  const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
  const key = (b) => (b & 0x80000000 ? ~b : b | 0x80000000) >>> 0;  // ordered as the numbers are
  const upper = new Uint32Array(65536), lower = new Uint32Array(65536);
  for (let i = 0; i < bits.length; i++) upper[key(bits[i]) >>> 16]++;
  return ranks.map((rank) => {
    const [top, left] = reached(upper, rank);
    lower.fill(0);
    for (let i = 0; i < bits.length; i++) {
      const k = key(bits[i]);
      if (k >>> 16 === top) lower[k & 65535]++;
    }
    const found = ((top << 16) | reached(lower, left)[0]) >>> 0;
    return new Float32Array(Uint32Array.of(found & 0x80000000 ? found & 0x7fffffff : ~found).buffer)[0];
  });
}

// The bin in which a rank lies, and its rank in there.
function reached(counts, rank) {
  let bin = 0;
  for (; rank >= counts[bin]; bin++) rank -= counts[bin];
  return [bin, rank];
}
