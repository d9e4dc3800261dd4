// From the files of a scan to a result and its record: all but the network and the page.
import { read as readSlice } from "./dicom.js";
import { BadInput } from "./errors.js";
import * as files from "./files.js";
import { plan as planned, spacing } from "./grid.js";
import { refuseOtherKinds } from "./labels.js";
import * as nifti from "./nifti.js";
import { record } from "./record.js";
import { volume as stacked } from "./series.js";
import * as sharpening from "./sharpen.js";

const SHOWN = 32 << 20;  // voxels that are shown at most; beyond, every n-th slice
const HEADROOM = 1.25;  // greatest intensity shown, in parts of the range

// The volume in a NIfTI file or in the files of a DICOM series, with its name, its stem and the digest of its files.
//
// folder: its name, if a folder was given; given: [{ name, bytes: () => Promise<ArrayBuffer> }].
export async function read(folder, given) {
  const scans = given.filter((one) => files.isNifti(one.name));
  if (scans.length > 1) throw new BadInput(`${folder || "the files"}: expected one scan, got ${scans.length} NIfTI files; choose one of them`);
  if (scans.length) {
    const [{ name, bytes }] = scans, packed = await bytes(), digest = await files.sha256(packed);
    const plain = /\.gz$/i.test(name) ? await files.gunzipped(name, packed) : packed;
    return { name, stem: files.stem(name), digest, volume: nifti.read(name, plain) };
  }
  const name = folder || given[0].name, slices = [], digests = [];
  for (const one of given) {
    const bytes = await one.bytes(), slice = readSlice(one.name, bytes);
    if (slice) {
      slices.push(slice);
      digests.push([one.name, await files.sha256(bytes)]);
    }
  }
  return { name, stem: folder, volume: stacked(name, slices), digest: await files.sha256Of(digests) };
}

// The result as a packed file, its record, and both volumes to look at.
//
// network: see weights.read; predict: runs it on a slice; about: see record; tell: told what is done, with how much of how much.
export async function run(scan, network, predict, about, tell = () => {}) {
  const began = performance.now(), { volume } = scan;
  refuseOtherKinds(scan.name, scan.stem, volume);
  const plan = planned(volume), { n, ...size } = sharpening.slices(volume.shape, plan.axis);
  sharpening.refuseSmall(scan.name, size, plan.axis);
  const spikes = sharpening.despike(volume.data, volume.shape, plan.axis);
  const norm = sharpening.normalisation(volume.data);
  tell("sharpen", 0, n);
  const data = await sharpening.sharpen(volume, plan, norm, predict, (done) => tell("sharpen", done, n));
  tell("pack");
  const { bytes, little } = nifti.written(volume, plan);
  const packed = await files.gzipped([bytes, data], nifti.turn(little, data));
  const result = { bytes: packed.size, digest: await files.sha256(await packed.arrayBuffer()) };
  const seconds = (performance.now() - began) / 1000;
  const stated = record({ about, scan, network, volume, plan, spikes, seconds, result });
  return { packed, stated, name: `${scan.stem || "scan"}_sharp`, view: view(volume, { ...plan, data }, norm) };
}

// What the viewer draws: 256 steps, and the range they are of.
function view(before, after, { offset, gain }) {
  const range = gain || 1, every = Math.ceil(after.data.length / SHOWN), step = HEADROOM * range / 255;
  const [first, second] = [before, after].map((one) => nifti.shown(one, after.axis, every, offset, step));
  const line = Math.min(...spacing(after.affine));
  return { before: first, after: second, every, facts: { low: offset, high: offset + range, top: offset + HEADROOM * range, range, line } };
}
