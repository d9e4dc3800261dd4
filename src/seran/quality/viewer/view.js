// Before and after: two NiiVue canvases on one field of view, the upper one cut at a divider in every plane.
"use strict";

function image(buffer, name, colours, low, high, negative = "") {
  return niivue.NVImage.new(
    buffer, name, colours, 1, null, low, high, true, 0, false, false, negative, 0, undefined, NaN, NaN, false,
  );
}

// Draw a NIfTI file into the canvas of this name, from `facts.low` to `facts.high`, on a ground of red, green, blue, 1: its
// middle slices, not what lies between two, and as radiologists look at them, the patient's left on the right.
async function viewer(id, buffer, facts, ground, more = {}) {
  const nv = new niivue.Niivue({
    logLevel: "error", interactive: id === "after", dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.none,
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    sliceType: niivue.SLICE_TYPE.MULTIPLANAR, isRadiologicalConvention: true, sagittalNoseLeft: true,
    showAllOrientationMarkers: true, crosshairColor: [1, 0.85, 0.3, 0.55],
    crosshairWidth: 0, crosshairWidthUnit: "mm",
    backColor: ground, fontColor: [0.65, 0.65, 0.65, 1], viewModeHotKey: "", clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "", ...more,
  });
  await nv.attachToCanvas(document.getElementById(id));
  nv.addVolume(await image(buffer, `${id}.nii`, "gray", facts.low, facts.high));
  const [, ...shape] = nv.volumes[0].dimsRAS;
  nv.scene.crosshairPos = nv.vox2frac(shape.map((count) => count >> 1));
  return nv;
}

// Let the upper canvas follow the lower one and make dividers; `both` does something to the two, `locate` says where
// the crosshair is.
function linked(facts, before, after) {
  const at = (id) => document.getElementById(id);
  const stage = at("stage");
  const PLANES = ["axial", "coronal", "sagittal"];
  const LABEL = 72;  // pixels beside a divider that a label takes

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
      divider.classList.toggle("low", h < 80);
      divider.dataset.width = String(w);
      [cut, w - cut].forEach((room, side) => { divider.children[side].hidden = room < LABEL; });
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
      `${Array.from(mm).slice(0, 3).map((n) => n.toFixed(1).replace(/^-0.0$/, "0.0")).join(", ")} mm: before ${a}, after ${b}`;
  }
  after.onLocationChange = locate;

  return { both: (change) => { change(before); change(after); }, locate };
}
