// A volume of the slices of one DICOM series, as in seran.io.dicom.slices.
import { BadInput, COMMAND } from "./errors.js";
import { refuseUnusable } from "./grid.js";
import { scaled } from "./voxels.js";

const TOLERANCE = 0.05;  // distances between slices that one may lie from its place on the grid
const APART = 1e-3;  // mm: slices whose positions differ by less are one slice twice

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const less = (a, b) => a.map((value, i) => value - b[i]);
const cross = ([a, b, c], [d, e, f]) => [b * f - c * e, c * d - a * f, a * e - b * d];

// folder: its name; slices: what seran's dicom.read gave of its files.
export function volume(folder, slices) {
  const first = refuseMixed(folder, slices);
  const across = cross(...first.plane), size = Math.hypot(...across), normal = across.map((value) => value / size);
  const sorted = [...slices].sort((a, b) => dot(a.position, normal) - dot(b.position, normal));
  const [step, start] = [stepOf(folder, sorted, normal), sorted[0].position];
  const lps = [0, 1, 2].map((i) => [first.plane[0][i], first.plane[1][i], step[i], start[i]]);
  const affine = [...lps.map((row, i) => row.map((value) => (i < 2 ? -value : value))), [0, 0, 0, 1]];
  refuseUnusable(folder, affine);
  const [x, y] = first.shape, data = new Float32Array(x * y * sorted.length);
  sorted.forEach(({ name, pixels, scaling }, z) => {
    data.set(scaled(name, pixels, { exact: false }, ...scaling), z * x * y);
  });
  const components = sorted.flatMap((one) => one.components);
  return { data, shape: [x, y, sorted.length], affine, slices: first.flat ? 2 : null, components };
}

function refuseMixed(folder, slices) {
  if (!slices.length) throw new BadInput(`${folder}: expected a NIfTI file or the folder of a DICOM series with MR images, found none`);
  const [first] = slices, series = new Set(slices.map((one) => one.series));
  if (series.size > 1) {
    const numbers = [...new Set(slices.map((one) => one.number || one.series))].join(", ");
    throw new BadInput(`${folder}: expected one series, got ${series.size} (${numbers}); choose a folder with one of them`);
  }
  if (new Set(slices.map((one) => one.stack)).size > 1) {
    throw new BadInput(`${folder}: expected one volume, got several echoes or moments (4-D); ${COMMAND}`);
  }
  for (const one of slices) {
    const same = one.shape.every((n, i) => n === first.shape[i]) &&
      one.plane.flat().every((value, i) => Math.abs(value - first.plane.flat()[i]) <= 1e-3 + 1e-5 * Math.abs(value));
    if (!same) {
      throw new BadInput(`${one.name}: expected the shape, orientation and pixel spacing of ${first.name}, of the same series; ` +
        "a localizer shows several orientations: put each into a folder of its own");
    }
  }
  return first;
}

// From a slice to the next, in mm.
function stepOf(folder, sorted, normal) {
  const first = sorted[0], n = sorted.length;
  if (n === 1) {
    const alone = first.thickness || first.between;
    if (alone <= 0) throw new BadInput(`${first.name}: expected the SliceThickness of a slice that is alone, got none`);
    return normal.map((value) => alone * value);
  }
  const steps = sorted.slice(1).map((one, i) => dot(less(one.position, sorted[i].position), normal));
  const twice = steps.findIndex((mm) => mm < APART);
  if (twice >= 0) {
    throw new BadInput(`${sorted[twice + 1].name}: it lies where ${sorted[twice].name} of the same series lies; remove one of ` +
      "them, or, if they belong to volumes of their own (diffusion), convert the series to NIfTI (dcm2niix)");
  }
  const pitch = [...steps].sort((a, b) => a - b)[(n - 2) >> 1];
  if (Math.max(...steps) > 1.5 * pitch) throw new BadInput(`${folder}: slices are missing, or the gaps between them vary; complete the series`);
  const step = less(sorted[n - 1].position, first.position).map((mm) => mm / (n - 1));
  const off = Math.max(...sorted.flatMap((one, i) => less(one.position, first.position).map((mm, j) => Math.abs(mm - i * step[j]))));
  if (off > TOLERANCE * pitch) {
    throw new BadInput(`${first.name}: expected slices ${pitch.toPrecision(3)} mm apart on a regular grid, but one of its series ` +
      `lies ${off.toPrecision(3)} mm from its place`);
  }
  return step;
}
