// From a predictor on slices to a scan on its finer grid, as in seran.sharpen.
import { BadInput } from "./errors.js";
import { ranked } from "./voxels.js";

const EXTREME = 0.001;  // part of the voxels beyond the percentiles that bound a scan's intensities
const FAR = 0.5;  // part of the greatest intensities above which the least ones are an offset
const SMALLEST = 4;  // slices below this many pixels a side carry no plane to sharpen
const SPIKE = 10, LONE = 4;  // a damaged voxel: times the rest of the scan, of fewer than so many in 5x5
const { fround } = Math;

// What takes intensities to about [0, 1]: (x - offset) / gain; a few extreme voxels move neither.
export function normalisation(data) {
  const n = data.length, at = EXTREME * (n - 1), i = Math.floor(at), next = Math.min(i + 1, n - 1);
  const [least, low0, low1, high1, high0, greatest] = ranked(data, [0, i, next, n - 1 - next, n - 1 - i, n - 1]);
  if (least === greatest) return { offset: least, gain: 0 };
  const low = (low1 - low0) * (at - i) + low0, high = (high1 - high0) * (at - i) + high0;
  const offset = low < 0 || low > FAR * high ? low : 0;
  return { offset, gain: (high > offset ? high : greatest) - offset };
}

// How to walk through the slices of a volume: how many, rows, columns, and the steps from one to the next in its array.
export function slices(shape, axis) {
  const strides = [1, shape[0], shape[0] * shape[1]];
  const [r, c] = [0, 1, 2].filter((i) => i !== axis);
  return { n: shape[axis], h: shape[r], w: shape[c], across: strides[axis], down: strides[r], along: strides[c] };
}

// One slice, row by row.
function slice(data, { h, w, across, down, along }, index) {
  const made = new Float32Array(h * w);
  for (let r = 0, to = 0; r < h; r++) {
    for (let c = 0, at = index * across + r * down; c < w; c++, at += along) made[to++] = data[at];
  }
  return made;
}

export function refuseSmall(name, { h, w }, axis) {
  if (Math.min(h, w) < SMALLEST) {
    throw new BadInput(`${name}: slices of ${h}x${w} pixels along array axis ${axis}: must be at least ${SMALLEST}x${SMALLEST}`);
  }
}

// Replace each spike, a voxel far above all of the scan or one of two or three, by the median around; how many there were.
export function despike(data, shape, axis) {
  const way = slices(shape, axis), limit = most(data, way);
  let count = 0;
  for (let i = 0; i < way.n; i++) {
    const part = slice(data, way, i);
    part.forEach((value, at) => {
      if (Math.abs(value) <= limit) return;
      const around = neighbours(part, way, at);
      if (around.filter((other) => Math.abs(other) >= fround(Math.abs(value) / 10)).length >= LONE) return;
      const [r, c] = [Math.floor(at / way.w), at % way.w], middle = around.length >> 1;
      around.sort((a, b) => a - b);
      data[i * way.across + r * way.down + c * way.along] =
        around.length % 2 ? around[middle] : fround(fround(around[middle - 1] + around[middle]) / 2);
      count++;
    });
  }
  return count;
}

// The values in the 5x5 pixels about one, as far as there are any.
function neighbours(part, { h, w }, at) {
  const row = Math.floor(at / w), column = at % w, made = [];
  for (let r = Math.max(0, row - 2); r <= Math.min(h - 1, row + 2); r++) {
    for (let c = Math.max(0, column - 2); c <= Math.min(w - 1, column + 2); c++) made.push(part[r * w + c]);
  }
  return made;
}

// What no voxel of a sound scan exceeds.
function most(data, way) {
  const parts = Array.from({ length: way.n }, (_, i) => slice(data, way, i).map(Math.abs).reduce((a, b) => Math.max(a, b), 0));
  const order = parts.map((_, i) => i).sort((a, b) => parts[b] - parts[a]), top = parts[order[0]];
  let level = 0;
  for (const i of order) {
    const part = slice(data, way, i).map(Math.abs);
    level = Math.max(level, ranked(part, [Math.floor(0.99 * (part.length - 1))])[0]);
    if (top <= SPIKE * level) break;
  }
  return SPIKE * level || Infinity;
}

// The fine voxels of a scan, in the order of its file; never negative where the scan is not.
//
// predict: from a slice of about [0, 1], its rows and its columns to one of twice as many of both.
// progress: told how many slices are done.
export async function sharpen(volume, plan, norm, predict, progress = () => {}) {
  const { offset, gain } = { offset: fround(norm.offset), gain: fround(norm.gain) };
  const from = slices(volume.shape, plan.axis), to = slices(plan.shape, plan.axis);
  const made = new Float32Array(plan.shape[0] * plan.shape[1] * plan.shape[2]);
  if (gain === 0) return made.fill(offset);
  for (let i = 0; i < from.n; i++) {
    const low = slice(volume.data, from, i);
    const high = await predict(low.map((x) => fround(x - offset) / gain), from.h, from.w);
    for (let r = 0, at = 0; r < to.h; r++) {
      const above = (r >> 1) * from.w;
      for (let c = 0, there = i * to.across + r * to.down; c < to.w; c++, there += to.along) {
        const value = fround(fround(high[at++] * gain) + offset);
        if (!Number.isFinite(value)) {
          throw new BadInput(`the result: expected finite voxels, got ${value}, from damaged intensities in the scan`);
        }
        made[there] = value < 0 && low[above + (c >> 1)] >= 0 ? 0 : value;
      }
    }
    progress(i + 1);
  }
  return made;
}
