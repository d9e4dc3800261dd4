// Bytes: packed and unpacked, their digests, and names of files.
import { BadInput } from "./errors.js";

const PART = 1 << 20;  // bytes that are handed on at a time

const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

export async function sha256(bytes) {
  return hex(await crypto.subtle.digest("SHA-256", bytes));
}

// The digest of a file; of several, that of what `sha256sum * | sort` prints for them. Files: [name, digest].
export async function sha256Of(files) {
  if (files.length === 1) return files[0][1];
  const lines = files.map(([name, digest]) => `${digest}  ${name}\n`).sort();
  return sha256(new TextEncoder().encode(lines.join("")));
}

export async function gunzipped(name, bytes) {
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return await new Response(stream).arrayBuffer();
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new BadInput(`${name}: expected one gzip stream, got a damaged one, or more behind it; unpack it, or copy it again`);
  }
}

// Gzip of some arrays of bytes, one after the other, as a Blob. `turn` is applied to a copy of each part.
export async function gzipped(arrays, turn = (part) => part) {
  function* parts() {
    for (const array of arrays) {
      const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
      for (let at = 0; at < bytes.length; at += PART) yield turn(bytes.slice(at, at + PART), array);
    }
  }
  const left = parts();
  const source = new ReadableStream({
    pull(controller) {
      const { value, done } = left.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  });
  return new Response(source.pipeThrough(new CompressionStream("gzip"))).blob();
}

export const isNifti = (name) => /\.nii(\.gz)?$/i.test(name);

// A name without the ending of its format.
export const stem = (name) => name.replace(/\.nii(\.gz)?$/i, "");
