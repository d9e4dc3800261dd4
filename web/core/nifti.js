// NIfTI-1 in one file, read and written as seran.io.nifti does: both transforms move, each keeps the code it had.
import { BadInput, COMMAND, counted } from "./errors.js";
import * as grid from "./grid.js";
import { TYPES, decoded, scaled, swapped } from "./voxels.js";

const SIZE = 348, FIRST = 352;  // bytes of the header, and with the mark of extensions
const TOLERANCE = 0.05;  // voxels that sform and qform may lie apart
const ALIKE = 0.01;  // part by which voxels of two spaces may differ
const HAIR = 1.005;  // the length of a quaternion that is 1 but for rounding
const MILLIMETRES = { 1: 1e3, 3: 1e-3 };  // in a metre and a micron, by their codes
const NOT_SCALAR = [[1004, 1010], [2002, 2004], [2006, 2009], [2016, 2017], [3000, 3099]];
const AT = {
  dimInfo: 39, dim: 40, intent: 68, type: 70, bits: 72, sliceStart: 74, pixdim: 76, offset: 108, slope: 112, inter: 116,
  sliceEnd: 120, sliceCode: 122, units: 123, max: 124, min: 128, sliceDuration: 132, qcode: 252, scode: 254,
  quaternion: 256, qoffset: 268, srow: 280, magic: 344,
};

// The numbers of a header, in its own order of bytes.
class Header {
  constructor(bytes, little) {
    this.bytes = bytes;
    this.little = little;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  copy() { return new Header(this.bytes.slice(), this.little); }
  short(at) { return this.view.getInt16(at, this.little); }
  float(at) { return this.view.getFloat32(at, this.little); }
  floats(at, n) { return Array.from({ length: n }, (_, i) => this.float(at + 4 * i)); }
  shorts(at, n) { return Array.from({ length: n }, (_, i) => this.short(at + 2 * i)); }
  setShorts(at, ...values) { values.forEach((value, i) => this.view.setInt16(at + 2 * i, value, this.little)); }
  setFloats(at, ...values) { values.forEach((value, i) => this.view.setFloat32(at + 4 * i, value, this.little)); }
}

// A scan: its float32 voxels with the first axis fastest, shape, affine, the axis of its slices if it names one, its intent,
// and what is needed to write it back.
export function read(name, buffer) {
  const bytes = new Uint8Array(buffer), header = opened(name, bytes);
  const shape = shaped(name, header), type = TYPES[header.short(AT.type)];
  if (!type) {
    throw new BadInput(`${name}: its voxels are of type ${header.short(AT.type)}, which this page does not read; ${COMMAND}`);
  }
  const extensions = extended(name, bytes, header);
  const count = shape[0] * shape[1] * shape[2], start = header.float(AT.offset) || FIRST;
  const need = count * type.array.BYTES_PER_ELEMENT;
  if (bytes.length < start + need) {
    const has = Math.max(0, bytes.length - start);
    throw new BadInput(`${name}: its header promises ${counted(need, "byte")} of voxels, but it has ${has}; it is damaged or cut off`);
  }
  const sizes = new Header(bytes.slice(0, SIZE), header.little).floats(AT.pixdim + 4, 3);  // not mended
  if (!header.short(AT.scode) && sizes.some((mm, i) => mm <= 0 && shape[i] > 1)) {
    throw new BadInput(`${name}: expected voxels above 0 mm, got ${sizes.join(" x ")} (pixdim); correct its header`);
  }
  toMillimetres(header);
  const affine = transform(name, header, shape);
  grid.refuseUnusable(name, affine);
  const [slope, inter] = scaling(name, header);
  const data = scaled(name, decoded(bytes.subarray(start, start + need), type, header.little), type, slope, inter);
  const named = (header.bytes[AT.dimInfo] >> 4) & 3;
  return { data, shape, affine, slices: named ? named - 1 : null, intent: header.short(AT.intent), header, extensions };
}

function opened(name, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = bytes.length < SIZE ? 0 : [true, false].find((order) => view.getInt32(0, order) === SIZE);
  const second = bytes.length >= 4 && [true, false].some((order) => view.getInt32(0, order) === 540);
  if (second) throw new BadInput(`${name}: it is NIfTI-2, which this page does not read; ${COMMAND}`);
  if (size === undefined || size === 0) {
    throw new BadInput(`${name}: cannot be read as NIfTI (expected ${SIZE}, the size of a header, as its first number)`);
  }
  if (String.fromCharCode(...bytes.subarray(AT.magic, AT.magic + 3)) !== "n+1") {
    throw new BadInput(`${name}: expected header and voxels in one file (.nii, .nii.gz), got another kind; ${COMMAND}`);
  }
  const header = new Header(bytes.slice(0, SIZE), size);
  mend(header);
  return header;
}

// What is forgiven, as nibabel does it: sizes and a sign that cannot be, unknown codes, a quaternion too long by rounding.
function mend(header) {
  const [sign, ...size] = header.floats(AT.pixdim, 4);
  header.setFloats(AT.pixdim, sign === -1 ? -1 : 1, ...size.map((mm) => Math.abs(mm) || 1));
  for (const at of [AT.qcode, AT.scode]) if (header.short(at) < 0 || header.short(at) > 5) header.setShorts(at, 0);
  const quaternion = header.floats(AT.quaternion, 3), length = Math.hypot(...quaternion);
  if (length > 1 && length < HAIR) header.setFloats(AT.quaternion, ...quaternion.map((q) => q / (length * (1 + 1e-15))));
}

function shaped(name, header) {
  const [n, ...dim] = header.shorts(AT.dim, 8);
  if (n < 1 || n > 7) throw new BadInput(`${name}: cannot be read as NIfTI (${n} axes)`);
  const used = dim.map((size, i) => (i < n ? size : 1));
  if (used.some((size) => size < 1)) throw new BadInput(`${name}: expected voxels, got an empty image (${used.slice(0, n)})`);
  const code = header.short(AT.intent);
  if (used.slice(4).some((size) => size > 1) || NOT_SCALAR.some(([from, to]) => from <= code && code <= to)) {
    throw new BadInput(`${name}: expected one intensity per voxel, got vectors, matrices or coefficients, which are no scans`);
  }
  if (used[3] > 1) {
    throw new BadInput(`${name}: expected a 3-D scan, got a series of ${used[3]} volumes (4-D); ${COMMAND}, or save one volume as a file`);
  }
  return used.slice(0, 3);
}

// The extensions as they are written again, whatever is in them: [code, bytes].
function extended(name, bytes, header) {
  const start = header.float(AT.offset), found = [];
  if (start && (start < FIRST || start > bytes.length || start % 1)) {
    throw new BadInput(`${name}: cannot be read as NIfTI (expected voxels after its header, got byte ${start})`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = FIRST; bytes[SIZE] && at + 16 <= start;) {
    const length = view.getInt32(at, header.little), code = view.getInt32(at + 4, header.little);
    if (length < 8 || at + length > start) break;
    let end = at + length;
    while (end > at + 8 && bytes[end - 1] === 0) end--;
    found.push([code, bytes.slice(at + 8, end)]);
    at += length;
  }
  return found;
}

function scaling(name, header) {
  const slope = header.float(AT.slope), inter = header.float(AT.inter);
  if (slope === 0 || !Number.isFinite(slope)) return [1, 0];
  if (!Number.isFinite(inter)) throw new BadInput(`${name}: cannot be read as NIfTI (its scl_inter is ${inter})`);
  return [slope, inter];
}

// Change a header that counts in metres or microns to millimetres.
function toMillimetres(header) {
  const units = header.bytes[AT.units], length = MILLIMETRES[units & 7];
  if (!length) return;
  for (const [at, n] of [[AT.pixdim + 4, 3], [AT.qoffset, 3], [AT.srow, 12]]) {
    header.setFloats(at, ...header.floats(at, n).map((value) => value * length));
  }
  header.bytes[AT.units] = (units & ~7) | 2;
}

function sform(header) {
  const rows = header.floats(AT.srow, 12);
  return [rows.slice(0, 4), rows.slice(4, 8), rows.slice(8, 12), [0, 0, 0, 1]];
}

function qform(name, header) {
  const [b, c, d] = header.floats(AT.quaternion, 3), w2 = 1 - (b * b + c * c + d * d);
  const [sign, ...size] = header.floats(AT.pixdim, 4);
  if (w2 < -1e-6) {
    throw new BadInput(`${name}: cannot be read as NIfTI (its qform is no rotation); ${COMMAND} with --affine sform`);
  }
  const rotation = rotated(Math.sqrt(Math.max(0, w2)), b, c, d), offset = header.floats(AT.qoffset, 3);
  size[2] *= sign;
  return [...rotation.map((row, i) => [...row.map((value, j) => value * size[j]), offset[i]]), [0, 0, 0, 1]];
}

function rotated(w, x, y, z) {
  const s = 2 / (w * w + x * x + y * y + z * z);
  return [
    [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
    [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
    [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
  ];
}

// Where neither transform is stated: as nibabel, and the format's fathers, have it.
function unstated(header, shape) {
  const size = header.floats(AT.pixdim + 4, 3);
  size[0] *= -1;
  const rows = size.map((mm, i) => size.map((_, j) => (i === j ? mm : 0)).concat(-mm * (shape[i] - 1) / 2));
  return [...rows, [0, 0, 0, 1]];
}

const codes = (header) => [header.short(AT.scode), header.short(AT.qcode)];

// The affine that counts: what both transforms say; the sform, of two spaces with voxels of one size.
function transform(name, header, shape) {
  const [s, q] = codes(header);
  if (!s && !q) return unstated(header, shape);
  const affines = [s ? sform(header) : null, q ? qform(name, header) : null];
  const off = s && q ? apart(shape, ...affines) : 0;
  if (off !== 0 && (s === q || !Number.isFinite(off) || !alike(...affines))) {
    throw new BadInput(`${name}: sform (code ${s}) and qform (code ${q}) place the scan up to ${off.toPrecision(3)} mm apart; ` +
      `${COMMAND}, and say which is right with --affine sform or --affine qform`);
  }
  return affines[0] ?? affines[1];
}

// How far two transforms that disagree place a corner of the field of view apart, in mm; else 0.
function apart(shape, one, other) {
  const others = grid.corners(shape, other);
  const off = Math.max(...grid.corners(shape, one).map((at, i) => Math.hypot(...at.map((mm, j) => mm - others[i][j]))));
  return off <= TOLERANCE * Math.min(...grid.spacing(one)) ? 0 : off;
}

// Whether two transforms may be of one scan in two spaces: voxels of one size, neither a mirror image.
function alike(one, other) {
  const size = grid.spacing(other);
  return grid.determinant(grid.linear(one)) * grid.determinant(grid.linear(other)) > 0 &&
    grid.spacing(one).every((mm, i) => Math.abs(mm - size[i]) <= ALIKE * size[i]);
}

// The bytes before the voxels of a result in float32, and whether these are little-endian.
export function written(scan, plan) {
  const header = scan.header ? scan.header.copy() : fresh();
  const slice = (header.bytes[AT.dimInfo] >> 4) & 3;
  if ((slice ? slice - 1 : 2) !== plan.axis) {  // the timing of slices that are no longer these
    header.setShorts(AT.sliceStart, 0);
    header.setShorts(AT.sliceEnd, 0);
    header.setFloats(AT.sliceDuration, 0);
    header.bytes[AT.sliceCode] = 0;
  }
  header.setShorts(AT.dim, 3, ...plan.shape, 1, 1, 1, 1);
  header.setShorts(AT.type, 16, 32);
  header.setFloats(AT.pixdim + 16, 1, 1, 1, 1);
  header.setFloats(AT.slope, 1, 0);
  header.setFloats(AT.max, 0, 0);
  if (scan.header) move(scan, header, plan);
  else {
    setSform(header, plan.affine, 1);
    setQform(header, plan.affine, 1);
  }
  return { bytes: assembled(header, scan.extensions ?? []), little: header.little };
}

function fresh() {
  const header = new Header(new Uint8Array(SIZE), true);
  header.view.setInt32(0, SIZE, true);
  header.bytes[AT.units] = 2;  // mm
  header.bytes.set(new TextEncoder().encode("n+1"), AT.magic);
  return header;
}

// Move both transforms as the voxels of a scan were moved.
function move(scan, header, plan) {
  const [s, q] = codes(scan.header);
  setSform(header, plan.affine, s);
  if (!q) {
    setQform(header, plan.affine, 0);
    return;
  }
  const former = qform("the scan", scan.header), together = apart(scan.shape, scan.affine, former) === 0;
  let moved = grid.multiplied(former, plan.change);
  if (together && apart(plan.shape, plan.affine, moved) !== 0) moved = plan.affine;  // by voxels that are finer
  const [old, now] = [former, moved].map(grid.cosines);
  if (old.every((row, i) => row.every((value, j) => Math.abs(value - now[i][j]) < 1e-4))) {
    header.setFloats(AT.pixdim + 4, ...grid.spacing(moved));  // the rotation is unchanged, and so stays its quaternion
    header.setFloats(AT.qoffset, ...moved.slice(0, 3).map((row) => row[3]));
  } else if (!setQform(header, moved, q) && !s) {
    header.setShorts(AT.scode, q);
  }
}

function setSform(header, affine, code) {
  header.setShorts(AT.scode, code);
  header.setFloats(AT.srow, ...affine.slice(0, 3).flat());
}

// Whether the qform could be written: it holds no shears, and has the code 0 then.
function setQform(header, affine, code) {
  const cosines = grid.cosines(affine), sign = grid.determinant(cosines) > 0 ? 1 : -1;
  const able = [0, 1, 2].every((i) => [0, 1, 2].every((j) => {
    const product = cosines.reduce((sum, row) => sum + row[i] * row[j], 0);
    return Math.abs(product - (i === j)) < 1e-4;
  }));
  const turned = rotation(cosines.map(([a, b, c]) => [a, b, sign * c]));
  header.setFloats(AT.pixdim, sign, ...grid.spacing(affine));
  header.setFloats(AT.quaternion, ...quaternion(turned));
  header.setFloats(AT.qoffset, ...affine.slice(0, 3).map((row) => row[3]));
  header.setShorts(AT.qcode, able ? code : 0);
  return able;
}

// The nearest rotation: the polar factor, by Newton's iteration.
function rotation(matrix) {
  for (let round = 0; round < 40; round++) {
    const [[a, b, c], [d, e, f], [g, h, i]] = matrix, det = grid.determinant(matrix);
    const inverse = [  // transposed
      [e * i - f * h, f * g - d * i, d * h - e * g],
      [c * h - b * i, a * i - c * g, b * g - a * h],
      [b * f - c * e, c * d - a * f, a * e - b * d],
    ];
    matrix = matrix.map((row, r) => row.map((value, k) => (value + inverse[r][k] / det) / 2));
  }
  return matrix;
}

// The imaginary parts of a rotation whose real part is not negative.
function quaternion(r) {
  const squares = [
    1 + r[0][0] + r[1][1] + r[2][2], 1 + r[0][0] - r[1][1] - r[2][2],
    1 - r[0][0] + r[1][1] - r[2][2], 1 - r[0][0] - r[1][1] + r[2][2],
  ];
  const k = squares.indexOf(Math.max(...squares)), size = 2 * Math.sqrt(squares[k]);
  const [x, y, z] = [r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]];
  const [xy, xz, yz] = [r[1][0] + r[0][1], r[0][2] + r[2][0], r[2][1] + r[1][2]];
  const made = [[squares[0], x, y, z], [x, squares[1], xy, xz], [y, xy, squares[2], yz], [z, xz, yz, squares[3]]][k];
  return made.slice(1).map((value) => (value * (made[0] < 0 ? -1 : 1)) / size);
}

function assembled(header, extensions) {
  const sizes = extensions.map(([, content]) => Math.ceil((content.length + 8) / 16) * 16);
  const start = FIRST + sizes.reduce((sum, size) => sum + size, 0);
  header.setFloats(AT.offset, start);
  const bytes = new Uint8Array(start), view = new DataView(bytes.buffer);
  bytes.set(header.bytes);
  bytes[SIZE] = extensions.length ? 1 : 0;
  let at = FIRST;
  extensions.forEach(([code, content], i) => {
    view.setInt32(at, sizes[i], header.little);
    view.setInt32(at + 4, code, header.little);
    bytes.set(content, at + 8);
    at += sizes[i];
  });
  return bytes;
}

// What turns the bytes of a part of voxels round, where their header wants it.
export const turn = (little, voxels) => (part, array) => (!little && array === voxels ? swapped(part, 4) : part);

// A small file to look at: every n-th slice in 256 steps from `low` on, on its place; little-endian.
export function shown(volume, axis, every, low, size) {
  const first = (Math.min(every, volume.shape[axis]) - 1) >> 1;
  const shape = volume.shape.map((n, i) => (i === axis ? Math.ceil((n - first) / every) : n));
  const [x, y, z] = volume.shape, at = [0, 1, 2].map((i) => (i === axis ? [first, every] : [0, 1]));
  const affine = volume.affine.map((row, r) => (r === 3 ? row : [
    ...row.slice(0, 3).map((value, i) => value * at[i][1]), row[3] + at.reduce((sum, [from], i) => sum + row[i] * from, 0),
  ]));
  const header = fresh();
  header.setShorts(AT.dim, 3, ...shape, 1, 1, 1, 1);
  header.setShorts(AT.type, 2, 8);
  header.setFloats(AT.pixdim, 1, ...grid.spacing(affine), 1, 1, 1, 1);
  header.setFloats(AT.slope, size, low);
  setSform(header, affine, 1);
  const before = assembled(header, []), made = new Uint8ClampedArray(before.length + shape[0] * shape[1] * shape[2]);
  made.set(before);
  let to = before.length;
  for (let k = at[2][0]; k < z; k += at[2][1]) for (let j = at[1][0]; j < y; j += at[1][1]) {
    const row = x * (j + y * k);
    for (let i = at[0][0]; i < x; i += at[0][1]) made[to++] = (volume.data[row + i] - low) / size;
  }
  return made.buffer;
}
