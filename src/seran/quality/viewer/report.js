// The script of a report: unpacks what the page holds, draws it, and draws overlays over it.
"use strict";
(async () => {
  const at = (id) => document.getElementById(id);
  const facts = JSON.parse(at("facts").textContent);
  const stage = at("stage"), state = at("state");

  if (typeof niivue === "undefined") {
    state.textContent = "The slices cannot be drawn: the folder “viewer”, which this page shares with others, is not "
      + "where it was. Move it with the page, or make a page that is complete in itself by seran compare.";
    return;
  }

  const held = new Map();  // what was unpacked: the cubic enlargement is made of two of these
  function unpacked(id) {
    if (!held.has(id)) held.set(id, unpack(id));
    return held.get(id);
  }

  async function unpack(id) {
    const text = atob(at(id).textContent);
    at(id).remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  // The cubic enlargement of before is after less the difference, on the grid of after: the same steps, no more bytes.
  async function cubic() {
    const buffer = (await unpacked("after-data")).slice(0), difference = await unpacked("difference-data");
    const start = new DataView(buffer).getFloat32(108, true);
    const [step, unit] = [buffer, difference].map((one) => new DataView(one).getFloat32(112, true));
    const steps = new Uint8Array(buffer, start), less = new Int8Array(difference, start), ratio = unit / step;
    for (let i = 0; i < steps.length; i++) steps[i] = Math.min(255, Math.max(0, Math.round(steps[i] - ratio * less[i])));
    return image(buffer, "cubic.nii", "gray", facts.low, facts.high);
  }

  const faint = { A: [0, 230], I: [0, 255] };
  niivue.cmapper.addColormap("brighter", { R: [255, 255], G: [170, 30], B: [120, 30], ...faint });
  niivue.cmapper.addColormap("darker", { R: [120, 40], G: [180, 90], B: [255, 255], ...faint });

  niivue.cmapper.addColormap("unsure", { R: [120, 255], G: [20, 235], B: [130, 90], ...faint });

  const ground = (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || [0, 0, 0]).slice(0, 3).map((n) => n / 255);
  ground.push(1);
  let before, after;
  try {
    after = await viewer("after", await unpacked("after-data"), facts, ground);
    before = await viewer("before", await unpacked("before-data"), facts, ground);
  } catch (error) {
    state.textContent = `The slices cannot be drawn: this page needs a browser with WebGL 2 (${error.message}).`;
    return;
  }
  state.remove();

  const { both, locate } = linked(facts, before, after);

  // The voxels of before where its field of view is not that of after: the nearest of each half voxel of after, in which
  // the edges of voxels of 2, 3 and 4 times the size lie between two; of each voxel, where halves would be too many.
  async function nearest() {
    const [low, high] = [new DataView(await unpacked("before-data")), new DataView(await unpacked("after-data"))];
    const shape = (view) => [42, 44, 46].map((place) => view.getInt16(place, true));
    const rows = (view) => [280, 296, 312].map((place) => [0, 4, 8, 12].map((next) => view.getFloat32(place + next, true)));
    const [n, m, a, b] = [shape(low), shape(high), rows(low), rows(high)], c = inverse(a);
    let to = [0, 1, 2].map((i) => [0, 1, 2, 3].map((j) => c[i].reduce((sum, value, k) => sum + value * (b[k][j] - (j === 3 ? a[k][3] : 0)), 0)));
    const halves = [0, 1, 2].map((j) => (Math.hypot(...to.map((row) => row[j])) < 0.99 ? 2 : 1));
    const split = halves.reduce((product, half, i) => product * half * m[i], 1) <= HALVES ? halves : [1, 1, 1];
    const start = low.getFloat32(108, true), size = m.map((count, i) => count * split[i]);
    to = to.map((row) => [...split.map((half, j) => row[j] / half), row[3] + split.reduce((sum, half, j) => sum + row[j] * (1 / half - 1) / 2, 0)]);
    const made = new ArrayBuffer(start + size[0] * size[1] * size[2]), view = new DataView(made);
    new Uint8Array(made).set(new Uint8Array(high.buffer, 0, start));
    size.forEach((count, i) => {
      view.setInt16(42 + 2 * i, count, true);
      view.setFloat32(80 + 4 * i, high.getFloat32(80 + 4 * i, true) / split[i], true);
    });
    b.forEach((row, i) => {
      split.forEach((half, j) => view.setFloat32(280 + 16 * i + 4 * j, row[j] / half, true));
      view.setFloat32(292 + 16 * i, row[3] + split.reduce((sum, half, j) => sum + row[j] * (1 / half - 1) / 2, 0), true);
    });
    const from = new Uint8Array(low.buffer, start), steps = new Uint8Array(made, start);
    const [p, q, r] = to;
    let at = 0;
    for (let z = 0; z < size[2]; z++) for (let y = 0; y < size[1]; y++) for (let x = 0; x < size[0]; x++, at++) {
      const i = Math.round(p[0] * x + p[1] * y + p[2] * z + p[3]), j = Math.round(q[0] * x + q[1] * y + q[2] * z + q[3]);
      const k = Math.round(r[0] * x + r[1] * y + r[2] * z + r[3]);
      if (i >= 0 && j >= 0 && k >= 0 && i < n[0] && j < n[1] && k < n[2]) steps[at] = from[i + n[0] * (j + n[1] * k)];
    }
    return image(made, "voxels.nii", "gray", facts.low, facts.high);
  }

  function inverse([a, b, c]) {
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const columns = [cross(b, c), cross(c, a), cross(a, b)], determinant = a[0] * columns[0][0] + a[1] * columns[0][1] + a[2] * columns[0][2];
    return [0, 1, 2].map((i) => columns.map((column) => column[i] / determinant));
  }

  // Every plane has the width and height that it has in mm, in whichever arrangement lets the three be largest.
  const GAP = 6, HALVES = 48 << 20;
  function boxes([a, c, s], three) {
    if (three < 3) return [[[three, 0, 0, [a, c, s][three], 1]]];
    const aspects = [a, c, s], made = [[[0, 0, 0, a, 1], [1, a, 0, c, 1], [2, a + c, 0, s, 1]]];
    made.push([[0, 0, 0, 1, 1 / a], [1, 0, 1 / a, 1, 1 / c], [2, 0, 1 / a + 1 / c, 1, 1 / s]]);
    for (const big of [0, 1, 2]) {
      const [p, q] = [0, 1, 2].filter((plane) => plane !== big), [m, n, o] = [aspects[big], aspects[p], aspects[q]];
      const w = 1 / (1 / n + 1 / o), h = 1 / (n + o);
      made.push([[big, 0, 0, m, 1], [p, m, 0, w, w / n], [q, m, w / n, w, w / o]]);
      made.push([[big, 0, 0, 1, 1 / m], [p, 0, 1 / m, n * h, h], [q, n * h, 1 / m, o * h, h]]);
    }
    return made;
  }

  function arrange() {
    const [x, y, z] = after.sliceScale().volScale, width = stage.parentElement.clientWidth;
    const above = stage.getBoundingClientRect().top + window.scrollY, room = window.innerHeight - 12;
    const height = room - above >= 480 ? room - above : Math.max(260, room - at("controls").offsetHeight);
    const areas = [x * y, x * z, y * z].map((area) => area / (x * y + x * z + y * z));  // the largest counts most
    let best = null;
    for (const made of boxes([x / y, x / z, y / z], Number(at("view").value))) {
      const wide = Math.max(...made.map(([, l, , w]) => l + w)), high = Math.max(...made.map(([, , t, , h]) => t + h));
      const scale = Math.min(width / wide, height / high);
      const score = made.reduce((sum, [plane, , , w, h]) => sum + areas[plane] * Math.log(w * h * scale * scale), 0);
      if (!best || score > best.score + 1e-9) best = { made, wide, high, scale, score };
    }
    const [w, h] = [best.wide * best.scale, best.high * best.scale].map(Math.floor);
    stage.style.width = `${w}px`;
    stage.style.height = `${h}px`;
    const inset = (start, size, whole, pixels) => [
      start / whole + (start > 1e-6 ? GAP / 2 / pixels : 0),
      size / whole - (start > 1e-6 ? GAP / 2 / pixels : 0) - (start + size < whole - 1e-6 ? GAP / 2 / pixels : 0),
    ];
    const layout = best.made.map(([sliceType, l, t, wide, high]) => {
      const [left, width] = inset(l, wide, best.wide, w), [top, height] = inset(t, high, best.high, h);
      return { sliceType, position: [left, top, width, height] };
    });
    both((nv) => { nv.resizeListener(); nv.setCustomLayout(layout); });
  }

  at("view").addEventListener("change", arrange);
  window.addEventListener("resize", arrange);
  new ResizeObserver(arrange).observe(at("controls"));
  function enlarge() {
    const zoom = Number(at("zoom").value), mm = after.frac2mm(after.scene.crosshairPos);
    const [x, y, z] = after.frac2mm([0.5, 0.5, 0.5]).map((middle, i) => (zoom === 1 ? 0 : middle - mm[i]));
    after.setPan2Dxyzmm([x, y, z, zoom]);
  }
  at("zoom").addEventListener("change", enlarge);
  for (const button of document.querySelectorAll(".lead")) {
    button.addEventListener("click", () => {
      after.scene.crosshairPos = after.mm2frac(button.dataset.mm.split(" ").map(Number));
      at("zoom").value = "4";
      enlarge();
      locate();
      at("controls").scrollIntoView({ block: "start" });
    });
  }

  const percent = (value) => Math.round(100 * value / facts.range);
  function ends() {
    const middle = Number(at("level").value) / 100, half = Number(at("window").value) / 200;
    const [low, high] = [middle - half, middle + half].map((part) => facts.least + part * facts.range);
    return { cal_min: low, cal_max: high };
  }
  function shade() {
    both((nv) => { Object.assign(nv.volumes[0], ends()); nv.updateGLVolume(); });
  }
  function tissue() {
    at("level").value = percent((facts.low + facts.high) / 2 - facts.least);
    at("window").value = percent(facts.high - facts.low);
  }
  for (const id of ["level", "window"]) at(id).addEventListener("input", shade);
  at("tissue").addEventListener("click", () => { tissue(); shade(); });

  const drawn = { voxels: facts.voxels === "other" ? null : before.volumes[0], cubic: null };  // as the reader chooses
  const nearestOf = (nv) => at("voxels").checked || (nv === before && at("drawn").value === "voxels");
  async function choose() {
    const wanted = facts.voxels === "none" ? "voxels" : at("drawn").value;
    drawn[wanted] ??= await (wanted === "cubic" ? cubic() : nearest());
    Object.assign(drawn[wanted], ends());
    before.opts.isNearestInterpolation = nearestOf(before);
    if (before.volumes[0] !== drawn[wanted]) {
      before.removeVolume(before.volumes[0]);
      before.addVolume(drawn[wanted]);
    }
    after.drawScene();
    stage.dataset.before = wanted;
  }
  at("drawn").disabled = facts.voxels === "none";
  at("drawn").addEventListener("change", choose);
  at("voxels").addEventListener("change", () => both((nv) => nv.setInterpolation(nearestOf(nv))));
  at("cross").addEventListener("change", (event) => both((nv) => nv.setCrosshairWidth(event.target.checked ? facts.line : 0)));

  function key(text, i) {  // every other one is a bar of colours
    if (i % 2 === 0) return document.createTextNode(text);
    const bar = document.createElement("span");
    bar.className = `bar ${text}`;
    return bar;
  }
  const overlays = [];  // in the order of their volumes, from 1 on
  async function changes() {
    const wanted = at("changes").checked, least = Number(at("least").value) * facts.range, what = at("what").value;
    const most = what === "uncertainty" ? Math.max(5 * least, facts.unsure * facts.range) : 5 * least;
    if (wanted && !overlays.includes(what)) {
      overlays.push(what);
      const buffer = await unpacked(`${what}-data`);
      const colours = what === "uncertainty" ? ["unsure", ""] : ["brighter", "darker"];
      after.addVolume(await image(buffer, `${what}.nii`, colours[0], least, most, colours[1]));
    }
    const [low, high] = [least, most].map((part) => `${(100 * part / facts.range).toFixed(0)} %`);
    const bars = [low, "brighter", `${high} and more of the range`];
    if (what === "uncertainty") bars[1] = "unsure";
    else bars.splice(0, 1, `−${high}`, "darker", `−${low}, ${low}`);
    at("legend").replaceChildren(...(wanted ? bars.map(key) : []));
    if (after.volumes.length <= overlays.length) return;
    overlays.forEach((name, i) => Object.assign(after.volumes[i + 1], {
      cal_min: least, cal_max: most, opacity: wanted && name === what ? 0.8 : 0,
    }));
    if (overlays.length) after.updateGLVolume();
  }
  for (const id of ["changes", "least", "what"]) at(id).addEventListener("change", changes);

  tissue();
  await choose();
  arrange();
  locate();
  stage.dataset.ready = "true";
})();
