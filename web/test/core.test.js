// The page against the package: golden results of tests/web_golden.py. Run by `node --test web/test/`, see tests/test_web.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { read as readWeights } from "../core/weights.js";
import * as grid from "../core/grid.js";
import { gunzipped } from "../core/files.js";
import { read, run } from "../core/job.js";
import { ranked } from "../core/voxels.js";

const root = new URL("../../", import.meta.url);
const golden = JSON.parse(readFileSync(new URL("tests/golden/web.json", root)));
const bytesOf = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const given = ({ files }) => files.map(([name, text]) => ({ name, bytes: async () => bytesOf(text).buffer }));
const about = { version: "0", engine: "none", requested: {} };
const network = { name: "n.onnx", digest: "d", card: { model: "phases", scale: 2, degradation: "bd", anchor: "corner" } };

// tests/web_golden.py has the same.
async function phases(low, h, w) {
  const high = new Float32Array(4 * h * w);
  for (let r = 0; r < 2 * h; r++) for (let c = 0; c < 2 * w; c++) {
    high[r * 2 * w + c] = Math.fround(low[(r >> 1) * w + (c >> 1)] * (1 + (r & 1) / 4 - (c & 1) / 8)) - 1 / 16;
  }
  return high;
}

function close(found, wanted, part, what) {
  const most = Math.max(...wanted.map(Math.abs), 1e-30);
  assert.equal(found.length, wanted.length, what);
  found.forEach((value, i) => assert.ok(Math.abs(value - wanted[i]) <= part * most, `${what} ${i}: ${value}, not ${wanted[i]}`));
}

// A header's bytes but for its floats of the affines, and these as numbers.
function taken(header) {
  const bytes = header.slice(), little = bytes[0] === 92, view = new DataView(bytes.buffer);
  const floats = [76, 80, 84, 88, ...Array.from({ length: 18 }, (_, i) => 256 + 4 * i)].map((at) => {
    const value = view.getFloat32(at, little);
    view.setFloat32(at, 0, little);
    return value;
  });
  return { bytes, floats };
}

for (const scan of golden.scans) {
  test(`as the package: ${scan.name}`, async () => {
    const { expected } = scan, told = [];
    const found = await read(scan.folder, given(scan));
    const made = await run(found, network, phases, about, (...words) => told.push(words));
    const all = new Uint8Array(await gunzipped("the result", await made.packed.arrayBuffer()));
    const header = bytesOf(expected.header), wanted = bytesOf(expected.voxels);
    const [one, other] = [taken(all.slice(0, header.length)), taken(header)];
    assert.deepEqual(one.bytes, other.bytes);
    close(one.floats, other.floats, 1e-6, "a float of the header");
    const little = header[0] === 92, data = new DataView(all.buffer, header.length), right = new DataView(wanted.buffer);
    const count = wanted.length / 4, numbers = (view) => Array.from({ length: count }, (_, i) => view.getFloat32(4 * i, little));
    assert.equal(all.length, header.length + wanted.length);
    close(numbers(data), numbers(right), 1e-6, "voxel");
    close(grid.plan(found.volume).affine.flat(), expected.affine.flat(), 1e-9, "affine");
    assert.equal(made.stated.SliceAxis, expected.axis);
    assert.equal(made.stated.Spikes, expected.spikes);
    assert.equal(made.stated.InputSHA256, expected.digest);
    assert.deepEqual(told.at(-1), ["pack"]);
  });
}

for (const scan of golden.refused) {
  test(`refused: ${scan.name}`, async () => {
    const tried = read(scan.folder, given(scan)).then((found) => run(found, network, phases, about));
    await assert.rejects(tried, (error) => {
      assert.equal(error.constructor.name, "BadInput", error.stack);
      assert.match(error.message, new RegExp(scan.pattern));
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  });
}

test("order statistics of numbers of either sign", () => {
  const data = Float32Array.from({ length: 999 }, (_, i) => Math.fround(Math.sin(i * 7.3) * 10 ** ((i % 9) - 4)));
  const sorted = data.slice().sort(), ranks = [0, 1, 37, 500, 998];
  assert.deepEqual(ranked(data, ranks), ranks.map((k) => sorted[k]));
});

test("the shipped weights are known by the digest that their file states", async () => {
  const bytes = new Uint8Array(readFileSync(new URL("src/seran/weights/shipped/srcnn-x2-bd.onnx", root)));
  const found = await readWeights("srcnn-x2-bd.onnx", bytes);
  assert.equal(found.card.model, "srcnn");
  assert.equal(found.card.anchor, "corner");
  bytes[1000] ^= 1;
  await assert.rejects(readWeights("srcnn-x2-bd.onnx", bytes), /the weights are damaged/);
});
