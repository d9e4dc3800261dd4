// The viewer of a report: two NiiVue canvases on one field of view, the upper one cut at a divider in every plane.
"use strict";
(async () => {
  const at = (id) => document.getElementById(id);
  const facts = JSON.parse(at("facts").textContent);
  const stage = at("stage"), state = at("state");
  const PLANES = ["axial", "coronal", "sagittal"];

  if (typeof niivue === "undefined") {
    state.textContent = "The slices cannot be drawn: the folder “viewer”, which this page shares with others, is not "
      + "where it was. Move it with the page, or make a page that is complete in itself by seran compare.";
    return;
  }

  async function unpacked(id) {
    const text = atob(at(id).textContent);
    at(id).remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function image(buffer, name, colours, low, high, negative = "") {
    return niivue.NVImage.new(
      buffer, name, colours, 1, null, low, high, true, 0, false, false, negative, 0, undefined, NaN, NaN, false,
    );
  }

  async function viewer(id, interactive) {
    const nv = new niivue.Niivue({
      logLevel: "error", interactive, dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.none,
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.ROW, multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      sliceType: niivue.SLICE_TYPE.MULTIPLANAR, tileMargin: 6, crosshairColor: [1, 0.85, 0.3, 0.55],
      crosshairWidth: 0, crosshairWidthUnit: "mm",
      backColor: [0, 0, 0, 1], fontColor: [0.65, 0.65, 0.65, 1], viewModeHotKey: "", clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
    });
    await nv.attachToCanvas(at(id));
    nv.addVolume(await image(await unpacked(`${id}-data`), `${id}.nii`, "gray", facts.low, facts.high));
    return nv;
  }

  const faint = { A: [0, 230], I: [0, 255] };
  niivue.cmapper.addColormap("brighter", { R: [255, 255], G: [170, 30], B: [120, 30], ...faint });
  niivue.cmapper.addColormap("darker", { R: [120, 40], G: [180, 90], B: [255, 255], ...faint });

  let before, after;
  try {
    after = await viewer("after", true);
    before = await viewer("before", false);
  } catch (error) {
    state.textContent = `The slices cannot be drawn: this page needs a browser with WebGL 2 (${error.message}).`;
    return;
  }
  state.remove();

  // The upper canvas takes no events: whatever happens to the lower one, the upper one follows.
  let fraction = 0.5;
  const dividers = [0, 1, 2].map((plane) => {
    const made = document.createElement("div");
    made.className = "divider";
    made.tabIndex = 0;
    made.setAttribute("role", "slider");
    made.setAttribute("aria-label", `Divider between before and after, ${PLANES[plane]}`);
    for (const name of ["before", "after"]) made.appendChild(document.createElement("span")).textContent = name;
    stage.append(made);
    return made;
  });
  const tiles = new Map();

  function divide() {
    const ratio = after.uiData.dpr || 1;
    tiles.clear();
    for (const tile of after.screenSlices) {
      if (tile.axCorSag < 3) tiles.set(tile.axCorSag, tile.leftTopWidthHeight.map((n) => n / ratio));
    }
    let path = "";
    dividers.forEach((divider, plane) => {
      const tile = tiles.get(plane);
      divider.hidden = !tile;
      if (!tile) return;
      const [x, y, w, h] = tile, cut = w * fraction;
      path += `M${x} ${y}h${cut}v${h}h${-cut}Z`;
      divider.style.left = `${x + cut}px`;
      divider.style.top = `${y}px`;
      divider.style.height = `${h}px`;
      divider.setAttribute("aria-valuenow", String(Math.round(100 * fraction)));
    });
    at("before").style.clipPath = `path("${path || "M0 0Z"}")`;
  }

  const draw = after.drawScene.bind(after);
  after.drawScene = (...given) => {
    const result = draw(...given);
    if (after.volumes.length) {
      before.scene.crosshairPos = before.mm2frac(after.frac2mm(after.scene.crosshairPos));
      before.scene.pan2Dxyzmm = after.scene.pan2Dxyzmm.slice();
      before.drawScene();
      divide();
    }
    return result;
  };

  function moveTo(to) {
    fraction = Math.min(1, Math.max(0, to));
    divide();
  }

  dividers.forEach((divider, plane) => {
    divider.setAttribute("aria-valuemin", "0");
    divider.setAttribute("aria-valuemax", "100");
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      divider.focus({ preventScroll: true });
      event.preventDefault();
    });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const [x, , w] = tiles.get(plane);
      moveTo((event.clientX - stage.getBoundingClientRect().left - x) / w);
    });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02, PageDown: -0.2, PageUp: 0.2, Home: -1, End: 1 }[event.key];
      if (step === undefined) return;
      moveTo(fraction + step);
      event.preventDefault();
    });
    divider.addEventListener("wheel", (event) => {
      at("after").dispatchEvent(new WheelEvent("wheel", event));
      event.preventDefault();
    }, { passive: false });
  });

  function value(nv, mm) {
    const volume = nv.volumes[0], voxel = volume.mm2vox(mm);
    return volume.getValue(...voxel, 0);
  }
  function locate() {
    const mm = after.frac2mm(after.scene.crosshairPos);
    const [a, b] = [before, after].map((nv) => Number(value(nv, mm).toPrecision(3)));
    at("where").textContent =
      `${Array.from(mm).slice(0, 3).map((n) => n.toFixed(1)).join(", ")} mm: before ${a}, after ${b}`;
  }
  after.onLocationChange = locate;

  const both = (change) => { change(before); change(after); };
  at("view").addEventListener("change", (event) => {
    const type = Number(event.target.value);
    stage.classList.toggle("single", type < 3);
    both((nv) => nv.setSliceType(type));
  });
  at("zoom").addEventListener("change", (event) => {
    const zoom = Number(event.target.value), mm = after.frac2mm(after.scene.crosshairPos);
    const [x, y, z] = after.frac2mm([0.5, 0.5, 0.5]).map((middle, i) => (zoom === 1 ? 0 : middle - mm[i]));
    after.setPan2Dxyzmm([x, y, z, zoom]);
  });
  at("bright").addEventListener("input", (event) => {
    const high = facts.low + (150 - Number(event.target.value)) / 50 * facts.range;
    both((nv) => { nv.volumes[0].cal_max = Math.min(high, facts.top); nv.updateGLVolume(); });
  });
  at("voxels").addEventListener("change", (event) => both((nv) => nv.setInterpolation(event.target.checked)));
  at("cross").addEventListener("change", (event) => both((nv) => nv.setCrosshairWidth(event.target.checked ? facts.line : 0)));

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

  after.drawScene();
  locate();
  stage.dataset.ready = "true";
})();
