// The page: takes a scan, shows how far it is, then before and after, and saves the result.
/* global view */
const at = (id) => document.getElementById(id);
const STEPS = { read: "Reading the scan …", pack: "Packing the result …" };
let worker, busy = false, addresses = [];

function say(text, failed = false) {
  at("status").textContent = text;
  at("work").classList.toggle("failed", failed);
}

function working(now) {
  busy = now;
  at("progress").hidden = at("cancel").hidden = !now;
  for (const id of ["file", "folder"]) at(id).disabled = now;
}

function start() {
  worker?.terminate();
  worker = new Worker("worker.js", { type: "module" });
  worker.onerror = (event) => heard.failed({ text: `The page cannot start: ${event.message ?? "a file of it did not load"}` });
  worker.onmessage = ({ data }) => heard[data.kind](data);
}

const heard = {
  ready({ engine }) {
    at("engine").textContent = `Runs on ${engine}.`;
    if (!busy && at("result").hidden) say("Ready.");
  },
  tell({ what, done, of }) {
    say(STEPS[what] ?? `Slice ${done} of ${of}`);
    if (of) Object.assign(at("progress"), { max: of, value: done });
    else at("progress").removeAttribute("value");
  },
  failed({ text }) {
    working(false);
    say(text, true);
  },
  async done({ packed, stated, name, view: shown }) {
    working(false);
    const by = (numbers, digits) => numbers.map((n) => (digits ? n.toFixed(digits) : n)).join(" × ");
    say(`Done in ${stated.Seconds.toFixed(1)} s: matrix ${by(stated.ShapeBefore)} → ${by(stated.ShapeAfter)}, ` +
      `voxel ${by(stated.VoxelSizeBefore, 2)} → ${by(stated.VoxelSizeAfter, 2)} mm.`);
    await show(shown);
    save(`${name}.nii.gz`, packed);
    save(`${name}.json`, new Blob([`${JSON.stringify(stated, null, 1)}\n`], { type: "application/json" }));
    at("saves").append(Object.assign(document.createElement("span"), {
      textContent: `${stated.Weights}, which undoes bicubic reduction and nothing else; not checked` +
        (stated.Spikes ? `; ${stated.Spikes} damaged voxels replaced by the median around` : ""),
    }));
    document.body.dataset.done = name;
  },
};

async function show({ before, after, every, facts }) {
  clear();
  at("result").append(at("shown").content.cloneNode(true));
  at("result").hidden = false;
  if (every > 1) at("note").textContent = `Every ${every === 2 ? "second" : `${every}th`} slice is drawn.`;
  await view(facts, before, after);
}

// What was shown leaves the memory of the GPU too.
function clear() {
  for (const canvas of at("result").querySelectorAll("canvas")) {
    canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
  }
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [];
  at("result").replaceChildren();
  at("result").hidden = true;
  delete document.body.dataset.done;
}

function save(name, blob) {
  const link = document.createElement("a");
  addresses.push(URL.createObjectURL(blob));
  Object.assign(link, { href: addresses.at(-1), download: name, textContent: `Save ${name}` });
  at("saves").append(link);
}

function take(folder, files) {
  if (busy || !files.length) return;
  clear();
  working(true);
  say(STEPS.read);
  worker.postMessage({ folder, files });
}

// The files of a dropped folder and of those in it, without hidden ones.
async function below(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => { entry.file(resolve, reject); })];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!part.length) return found;
    for (const one of part) found.push(...await below(one));
  }
}

async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  const folder = entries.find((entry) => entry.isDirectory)?.name ?? "", files = [];
  for (const entry of entries) files.push(...await below(entry));
  take(folder, files);
}

at("file").addEventListener("change", ({ target }) => { take("", [...target.files]); target.value = ""; });
at("folder").addEventListener("change", ({ target }) => {
  const files = [...target.files].filter((file) => !/(^|\/)\./.test(file.webkitRelativePath));
  take(files[0]?.webkitRelativePath.split("/")[0] ?? "", files);
  target.value = "";
});
at("cancel").addEventListener("click", () => {
  working(false);
  start();
  say("Cancelled.");
});
addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  dropped(event.dataTransfer.items).catch((error) => heard.failed({ text: `What was dropped cannot be read: ${error.message}` }));
});

if (!isSecureContext) say("This page works only over https, or from this machine itself (seran app).", true);
else start();

// The service worker keeps the page for use without a network, and gives it the headers that threads need, where the server
// does not. `seran app` has another address each time, and sends them.
const keeper = navigator.serviceWorker;
const own = location.hostname === "127.0.0.1" && crossOriginIsolated && !keeper?.controller;
if (keeper && !own) {
  await keeper.register("sw.js");
  await keeper.ready;
  document.body.dataset.kept = "true";
  const idle = !busy && at("result").hidden;
  if (!crossOriginIsolated && idle && !sessionStorage.getItem("again")) {
    sessionStorage.setItem("again", "once");
    location.reload();
  }
}
