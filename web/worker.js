// Sharpens beside the page, which stays responsive, and ends this worker to cancel.
import { BadInput } from "./core/errors.js";
import { read, run } from "./core/job.js";
import { load } from "./network.js";

const ready = load();
ready.then(({ about }) => postMessage({ kind: "ready", engine: about.engine }), failed);

function failed(error) {
  const short = error instanceof RangeError || /memory|allocation/i.test(error.message);
  const text = error instanceof BadInput ? error.message :
    short ? "The browser has too little memory for this scan; use the command, seran upscale" :
      `Unexpected ${error.name}: ${error.message}`;
  postMessage({ kind: "failed", text });
}

onmessage = async ({ data: { folder, files } }) => {
  try {
    const tell = (what, done, of) => postMessage({ kind: "tell", what, done, of });
    tell("read");
    const scan = await read(folder, files.map((file) => ({ name: file.name, bytes: () => file.arrayBuffer() })));
    const { network, predict, about } = await ready;
    const made = await run(scan, network, predict, about, tell);
    postMessage({ kind: "done", ...made }, [made.view.before, made.view.after]);
  } catch (error) {
    failed(error);
  }
};
