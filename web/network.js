// The network in ONNX Runtime: on the GPU (WebGPU) where that gives what the CPU gives, else on the CPU (WebAssembly).
import { ABOUT } from "./about.js";
import { gunzipped } from "./core/files.js";
import { read } from "./core/weights.js";
import * as ort from "./ort/ort.js";

const MOST = 16;  // threads beyond which slices of scans gain nothing
const TRIAL = [24, 20], APART = 2e-4;  // rows and columns on which GPU and CPU are compared, and by how much they may differ

async function fetched(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return answer.arrayBuffer();
}

// What runs the network on one slice.
async function predictor(bytes, backend) {
  const session = await ort.InferenceSession.create(bytes, { executionProviders: [backend], logSeverityLevel: 3 });
  const [input] = session.inputNames, [output] = session.outputNames;
  return async (low, h, w) => {
    const made = await session.run({ [input]: new ort.Tensor("float32", low, [1, 1, h, w]) });
    const { data } = made[output];
    made[output].dispose();
    return data;
  };
}

async function adapter() {
  const found = await navigator.gpu?.requestAdapter();
  return found && !found.info?.isFallbackAdapter ? found : null;
}

// The predictor on a GPU, if there is one that computes what the CPU does.
async function onGpu(bytes, reference) {
  try {
    const found = await adapter();
    if (!found) return null;
    const predict = await predictor(bytes, "webgpu");
    const [h, w] = TRIAL, low = Float32Array.from({ length: h * w }, (_, i) => (1 + Math.sin(i * i)) / 2);
    const [one, other] = [await predict(low, h, w), await reference(low, h, w)];
    if (!one.every((value, i) => Math.abs(value - other[i]) <= APART)) return null;
    const { vendor, architecture } = found.info ?? {};
    return { predict, words: ["WebGPU", [vendor, architecture].filter(Boolean).join(" ")] };
  } catch (error) {
    console.info(`WebGPU is there, and fails: ${error.message}`);
    return null;
  }
}

// The weights, what runs them on a slice, and words for that.
export async function load() {
  const [packed, file] = await Promise.all([fetched("ort/wasm.packed"), fetched(ABOUT.network)]);
  const bytes = new Uint8Array(file), threads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST) : 1;
  const network = await read(ABOUT.network, bytes);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort/wasm.js", import.meta.url) };
  ort.env.wasm.wasmBinary = await gunzipped("ort/wasm.packed", packed);
  const onCpu = await predictor(bytes, "wasm");
  const gpu = await onGpu(bytes, onCpu);
  const [kind, detail] = gpu?.words ?? ["WebAssembly", `${threads} thread${threads > 1 ? "s" : ""}`];
  const about = {
    version: ABOUT.version,
    engine: `${ABOUT.runtime} ${kind}${detail ? `, ${detail}` : ""}`,
    requested: { device: "auto", precision: "f32", threads },
  };
  return { network, predict: gpu?.predict ?? onCpu, about };
}
