// Affines of voxel grids, as in seran.grid: four rows of numbers, voxel index to mm (RAS+).
import { BadInput } from "./errors.js";

const LARGEST_MM = 1e9;  // beyond nothing lies
const FINEST_MM = 1e-4, COARSEST_MM = 1e4;  // of a voxel
const FLAT = 1e-6;  // volume of a voxel with sides of 1, below which they lie in a plane

export function multiplied(a, b) {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, value, k) => sum + value * b[k][j], 0)));
}

// The 3x3 part.
export const linear = (affine) => affine.slice(0, 3).map((row) => row.slice(0, 3));

export function determinant([[a, b, c], [d, e, f], [g, h, i]]) {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

// Voxel size per array axis in mm.
export const spacing = (affine) => [0, 1, 2].map((j) => Math.hypot(affine[0][j], affine[1][j], affine[2][j]));

// The directions of the array axes, as columns of length 1.
export function cosines(affine) {
  const size = spacing(affine);
  return linear(affine).map((row) => row.map((value, j) => value / size[j]));
}

// From indices of the grid with so many more voxels along each axis to those of the coarse one: corners stay.
export function change(factors) {
  const made = [0, 1, 2].map((i) => [0, 1, 2, 3].map((j) => (i === j ? 1 / factors[i] : 0)));
  made.forEach((row, i) => { row[3] = (1 / factors[i] - 1) / 2; });
  return [...made, [0, 0, 0, 1]];
}

// The eight outer corners of the field of view in mm: voxel faces, not voxel centres.
export function corners(shape, affine) {
  const ends = shape.map((n) => [-0.5, n - 0.5]), made = [];
  for (const x of ends[0]) for (const y of ends[1]) for (const z of ends[2]) {
    made.push(affine.slice(0, 3).map((row) => row[0] * x + row[1] * y + row[2] * z + row[3]));
  }
  return made;
}

// The array axis along which slices are stacked: of a single slice, the axis with one voxel; else the one that the file
// names; else the last of the coarsest spacing, to 1 % of it.
export function sliceAxis(affine, shape, named = null) {
  if (shape.filter((n) => n === 1).length === 1) return shape.indexOf(1);
  if (named !== null) return named;
  const size = spacing(affine), most = Math.max(...size);
  return size.findLastIndex((mm) => mm >= 0.99 * most);
}

// Sizes in mm of what, or of an element of the header that states them.
export function refuseSizes(name, sizes, what = "voxels") {
  if (!sizes.every((size) => size >= FINEST_MM && size <= COARSEST_MM)) {
    const range = `${FINEST_MM} to ${COARSEST_MM} mm`;
    throw new BadInput(`${name}: expected ${what} of ${range}, got ${sizes.join(" x ")}; correct its header`);
  }
}

export function refuseUnusable(name, affine) {
  refuseSizes(name, spacing(affine));
  const near = affine.every((row) => row.every((value) => Math.abs(value) < LARGEST_MM));
  if (!near || !(Math.abs(determinant(cosines(affine))) >= FLAT)) {
    throw new BadInput(`${name}: expected an invertible affine below ${LARGEST_MM} mm in it, got ${JSON.stringify(affine)}`);
  }
}

// Where the result of a network of factor 2 lies. Slices are slices[i][row][column]; the rows and columns of array axes that
// remain are in their order.
export function plan(volume) {
  const axis = sliceAxis(volume.affine, volume.shape, volume.slices);
  const factors = [0, 1, 2].map((i) => (i === axis ? 1 : 2)), moved = change(factors);
  return {
    axis, factors, change: moved,
    shape: volume.shape.map((n, i) => n * factors[i]),
    affine: multiplied(volume.affine, moved),
  };
}
