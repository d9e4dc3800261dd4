// The controls of the page: planes, zoom, brightness, pixels and crosshair.
"use strict";

// Draw two NIfTI files into #stage and make the controls work; the lower canvas, or null where nothing can be drawn.
//
// facts: the range of intensities from `low` to `high`, the greatest that is shown, and the width of the crosshair in mm.
async function view(facts, scan, sharp) {
  const at = (id) => document.getElementById(id);
  const stage = at("stage"), state = at("state");

  const how = [facts, [0, 0, 0, 1], { multiplanarLayout: niivue.MULTIPLANAR_TYPE.ROW, tileMargin: 6 }];
  let before, after;
  try {
    after = await viewer("after", sharp, ...how);
    before = await viewer("before", scan, ...how);
  } catch (error) {
    state.textContent = `The slices cannot be drawn: this page needs a browser with WebGL 2 (${error.message}).`;
    return null;
  }
  state.remove();

  const { both, locate } = linked(facts, before, after);
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

  after.drawScene();
  locate();
  return after;
}
