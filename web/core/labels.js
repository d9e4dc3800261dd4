// What is stored like a scan and is none, by its name, its header or its values (seran.job.labels).
import { BadInput } from "./errors.js";

const INTENTS = { 1002: "label", 1003: "NeuroNames" };
const NAME = /(?:^|[-_.+])(d?seg|mask|labels?|labelmap|segmentation|aseg|aparc|wmparc|ribbon)$/i;
const HINT = /seg|parc|label|mask|atlas|aal|roi|lesion/i;
const COMPLEX = /(?:^|_)(part-(?:phase|real|imag)|phasediff)(?:_|$)/;
const COMPONENTS = new Set(["P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"]);
const FEW = 16;  // different values that labels have at most
const ALIKE = 0.65, HINTED_ALIKE = 0.45;  // part of the voxels off the background like their neighbour
const TURNS = [Math.PI, 180, 1000 * Math.PI, 4096];  // half a turn, as it is stored

export function refuseOtherKinds(name, stem, volume) {
  const made = /_desc-seran|_sharp$/.exec(stem);
  const kinds = [
    ["a result of seran's", made && `its name says ${made[0].slice(1)}`, "sharpen the scan that it was made from"],
    ["labels", labels(stem, volume), "a segmentation or mask wants nearest neighbour, on the grid of the sharpened image"],
    ["phase, or a part of a complex image", phase(stem, volume), "sharpen the magnitude"],
  ];
  for (const [kind, why, how] of kinds) {
    if (why) {
      throw new BadInput(`${name}: expected an image, got what looks like ${kind} (${why}); ${how}, ` +
        "or use the command with --no-label-check");
    }
  }
}

function labels(stem, { data, shape, intent }) {
  if (INTENTS[intent]) return `its intent is ${INTENTS[intent]}`;
  const named = NAME.exec(stem);
  if (named) return `its name ends in ${named[1]}`;
  const values = few(data);
  if (values && values.size > 1 && Math.min(...values.values()) > 1) return `${values.size} different values`;
  const share = alike(data, shape);
  return share > (HINT.test(stem) ? HINTED_ALIKE : ALIKE) ? `${Math.round(100 * share)}% of its values are like their neighbour` : "";
}

// How often each value is there, if they are few.
function few(data) {
  const counts = new Map();
  for (const value of data) {
    counts.set(value, (counts.get(value) ?? 0) + 1);
    if (counts.size > FEW) return null;
  }
  return counts;
}

// Part of the voxels off the background, along the first axis, that are like the one before.
function alike(data, [x, y, z]) {
  const counts = new Map();
  for (let k = 0; k < z; k += 5) for (let j = 0; j < y; j += 5) for (let i = 0; i < x; i += 5) {
    const value = data[i + x * (j + y * k)];
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  const [common] = [...counts].reduce((a, b) => (b[1] > a[1] || (b[1] === a[1] && b[0] < a[0]) ? b : a));
  let same = 0, others = 0;
  for (let at = 0; at < data.length; at++) {
    if (at % x === 0 || data[at] === common) continue;
    others++;
    if (data[at] === data[at - 1]) same++;
  }
  return same / Math.max(others, 1);
}

function phase(stem, { data, components = [] }) {
  const said = components.filter((one) => COMPONENTS.has(one)).sort()[0];
  if (said) return `its DICOM header says ${said}`;
  const named = COMPLEX.exec(stem);
  if (named) return `its name says ${named[1]}`;
  let low = Infinity, high = -Infinity;
  for (const value of data) { if (value < low) low = value; if (value > high) high = value; }
  const filled = TURNS.some((turn) => Math.abs(high - turn) <= 0.01 * turn && Math.abs(low + turn) <= 0.01 * turn);
  return filled ? `its values fill ${low} to ${high}` : "";
}
