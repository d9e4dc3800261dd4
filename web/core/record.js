// The record of a result, in the words of seran.job.record. What the page does not know or do has that record's "not known".
import { spacing } from "./grid.js";

const rounded = (affine) => spacing(affine).map((mm) => Number(mm.toFixed(6)));

// What is stated of a result.
//
// about: version, engine in words, backend; scan: name and digest of the input; network: see weights.read.
export function record({ about, scan, network, volume, plan, spikes, seconds, result }) {
  const { card, name, digest } = network;
  return {
    Software: "seran",
    Version: about.version,
    Method: card.model,
    Weights: name,
    WeightsSHA256: digest,
    Scale: card.scale,
    Resampled: false,
    KspaceSupport: [1, 1],  // nothing of the acquisition is measured here
    SliceAxis: plan.axis,
    Degradation: card.degradation,
    GridAnchor: card.anchor,
    Engine: about.engine,
    Precision: "f32",
    Input: scan.name,
    InputSHA256: scan.digest,
    Factors: plan.factors.filter((_, i) => i !== plan.axis),
    Native: false,
    Window: "none",
    Noise: null,
    NoiseBy: "unknown",
    Consistent: false,
    Spikes: spikes,
    Volumes: 1,
    ShapeBefore: volume.shape,
    VoxelSizeBefore: rounded(volume.affine),
    ShapeAfter: plan.shape,
    VoxelSizeAfter: rounded(plan.affine),
    RequestedEngine: about.requested,
    Checks: [],
    Verdict: "not known",
    Seconds: Number(seconds.toFixed(3)),
    ResultBytes: [result.bytes],
    ResultSHA256: [result.digest],
    ResearchUseOnly: true,
    MadeIn: "a browser",
  };
}
