// The script of a report: unpacks what the page holds, draws it, and draws differences over it.
"use strict";
(async () => {
  const at = (id) => document.getElementById(id);
  const facts = JSON.parse(at("facts").textContent);

  async function unpacked(id) {
    const text = atob(at(id).textContent);
    at(id).remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  const faint = { A: [0, 230], I: [0, 255] };
  niivue.cmapper.addColormap("brighter", { R: [255, 255], G: [170, 30], B: [120, 30], ...faint });
  niivue.cmapper.addColormap("darker", { R: [120, 40], G: [180, 90], B: [255, 255], ...faint });

  const after = await view(facts, await unpacked("before-data"), await unpacked("after-data"));
  if (!after) return;

  const overlays = [];  // in the order of their volumes, from 1 on
  async function changes() {
    const wanted = at("changes").checked, least = Number(at("least").value) * facts.range, what = at("what").value;
    if (wanted && !overlays.includes(what)) {
      overlays.push(what);
      const buffer = await unpacked(`${what}-data`);
      after.addVolume(await image(buffer, `${what}.nii`, "brighter", least, 5 * least, "darker"));
    }
    if (after.volumes.length <= overlays.length) return;
    overlays.forEach((name, i) => Object.assign(after.volumes[i + 1], {
      cal_min: least, cal_max: 5 * least, opacity: wanted && name === what ? 0.8 : 0,
    }));
    if (overlays.length) after.updateGLVolume();
  }
  for (const id of ["changes", "least", "what"]) at(id).addEventListener("change", changes);

  at("stage").dataset.ready = "true";
})();
