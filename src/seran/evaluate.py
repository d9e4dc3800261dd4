"""Methods × the volumes of a split -> a report, with the protocol in its head."""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade
from seran.data.pairs import Packed, PreparedSet
from seran.errors import BadInput
from seran.metrics import METRICS, scores
from seran.metrics import psnr as whole_psnr
from seran.sharpen import Method, Predict, Progress, sharpen


@dataclass(frozen=True)
class Report:
    """Scores: one row per volume and method.

    Attributes:
        protocol: how the pairs and the scores were made, in words.
        baseline: the method that gains are counted from.
        methods: what was run, without the predictors.
        rows: ``volume``, ``subject``, ``contrast``, ``method``, one entry per metric, and
            the ``seconds`` that the method took.
    """

    protocol: list[str]
    baseline: str
    methods: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    def json(self) -> str:
        """Everything."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def means(self) -> list[dict[str, Any]]:
        """Mean over the volumes of a contrast, per method, in the rows' order."""
        keys = list(dict.fromkeys((r["contrast"], r["method"]) for r in self.rows))
        found = []
        for contrast, name in sorted(keys, key=lambda k: k[0]):
            group = [r for r in self.rows if (r["contrast"], r["method"]) == (contrast, name)]
            mean = {m: float(np.mean([r[m] for r in group])) for m in METRICS}
            found.append({"contrast": contrast, "method": name, "volumes": len(group), **mean})
        return found

    def markdown(self) -> str:
        """The protocol, the table of means and the table of volumes."""
        means, over = self.means(), f"over {self.baseline}"
        lines = [*(f"- {text}" for text in self.protocol), ""]
        lines += [f"| contrast | volumes | method | PSNR | {over} | SSIM 3-D | SSIM 2-D |", "|---" * 7 + "|"]
        lines += [
            f"| {r['contrast']} | {r['volumes']} | {r['method']} | {r['psnr']:.2f} | "
            f"{gain:+.2f} | {r['ssim_volume']:.4f} | {r['ssim_slice']:.4f} |"
            for r, gain in zip(means, self._gains(means, "contrast"), strict=True)
        ]
        lines += ["", f"| volume | contrast | method | PSNR | {over} |", "|---" * 5 + "|"]
        lines += [
            f"| {r['volume']} | {r['contrast']} | {r['method']} | {r['psnr']:.2f} | {gain:+.2f} |"
            for r, gain in zip(self.rows, self._gains(self.rows, "name"), strict=True)
        ]
        return "\n".join(lines) + "\n"

    def _gains(self, rows: Sequence[dict[str, Any]], key: str) -> list[float]:
        base = {r[key]: r["psnr"] for r in rows if r["method"] == self.baseline}
        return [r["psnr"] - base[r[key]] for r in rows]


def protocol(data: PreparedSet, scale: int, split: str, slices: int = 0) -> list[str]:
    """How the numbers of `evaluate` come about, in words.

    Args:
        data: the pairs.
        scale: 2, 3 or 4.
        split: which of its volumes.
        slices: how many central slices of each are scored; 0 for all.
    """
    which = f"the {slices} central slices" if slices else "every slice"
    stored = "as the scanner wrote it (zero-fill included)"
    crop = "cropped to its measured k-space support" if data.fourier_crop else stored
    return [
        f"x{scale}, {degrade.named(data.degradation).words} in the plane of the slices, "
        + ("rounded and clipped at 0" if data.integer else "not rounded"),
        f"truth: {which} of each volume of the split {split!r}, {crop}, "
        "then centrally cropped to multiples of 12",
        "PSNR: whole volume, range max - min of the truth, no border left out, not rounded",
        "SSIM 3-D: Gaussian window σ 1.5 over the volume, whole map; SSIM 2-D: per slice, mean over slices",
        "means over the volumes of a contrast",
    ]


def refuse_trained_on(method: Method, volumes: Sequence[Packed]) -> None:
    """Raise `BadInput` for scans that the method was trained on, or other ones of those subjects.

    Subjects are told apart within a repository; scans that name none, by their file alone.
    """
    files = {s["sha256"] for s in method.scans}
    subjects = {(s["repository"], s["subject"]) for s in method.scans if s["repository"]}
    known = [v for v in volumes if v.sha256 in files or (v.repository, v.subject) in subjects]
    if known:
        raise BadInput(
            f"{method.weights} was trained on {known[0].source} or other scans of {known[0].subject} "
            f"({len(known)} of {len(volumes)} scans here): scores on them would flatter; leave them out"
        )


def evaluate(
    data: PreparedSet,
    methods: Sequence[Method],
    split: str = "test",
    progress: Progress = lambda _: None,
    slices: int = 0,
) -> Report:
    """Run every method on every volume of a split.

    Args:
        data: pairs.
        methods: of one scale and, where they have weights, of the data's degradation, else of its anchor; its
            baseline is among them.
        split: ``test``, or ``val`` for anything that is still being tuned.
        progress: called with 1 per volume and method.
        slices: how many central slices of each volume are scored; 0 for all.

    Raises:
        BadInput: if a method undoes another degradation, was trained on a scan or a subject of the split, or
            the split is empty.
    """
    if not methods:
        raise BadInput("--methods: name at least one")
    scale = methods[0].scale
    undone = degrade.named(data.degradation)
    for m in methods:
        fits = m.degradation == data.degradation or (not m.weights and m.anchor == undone.anchor)
        if not fits or m.scale != scale:
            raise BadInput(
                f"{m.name} undoes {m.degradation} at x{m.scale}; the data are {data.degradation} at x{scale}"
            )
    if undone.baseline not in [m.name for m in methods]:
        raise BadInput(f"--methods: must include {undone.baseline}, from which gains are counted")
    volumes = data.pick(split)
    if not volumes:
        raise BadInput(f"{data.root}: the split {split!r} is empty")
    for m in methods:
        refuse_trained_on(m, volumes)
    if slices < 0:
        raise BadInput(f"--slices {slices}: must be 0 (all) or more")
    rows = []
    for volume in volumes:
        about = {name: getattr(volume, name) for name in ("name", "subject", "contrast")}
        about = {"volume": volume.source.split(".")[0], **about}
        whole = data.high(volume)
        first = max(0, len(whole) - slices) // 2 if slices else 0
        scored = slice(first, first + slices if slices else None)
        truth = np.asarray(whole[scored], np.float32)
        low = np.asarray(data.low(volume, scale)[scored], np.float32)
        for m in methods:
            began = time.perf_counter()
            made = sharpen(low, m).image
            seconds = time.perf_counter() - began
            row = {"method": m.name, **scores(truth, made, volume.span), "seconds": round(seconds, 6)}
            rows.append(about | row)
            progress(1)
    facts = [f.name for f in dataclasses.fields(Method) if f.name not in ("predict", "scans", "spacings")]
    stated = [{"scale": m.scale} | {name: getattr(m, name) for name in facts} for m in methods]
    return Report(protocol(data, scale, split, slices), undone.baseline, stated, rows)


def low_unit(data: PreparedSet, volume: Packed, scale: int, at: list[int]) -> Float[ndarray, "n h w"]:
    """Some low-resolution slices of a volume, as a network sees them.

    Args:
        data: the pairs.
        volume: one of them.
        scale: 2, 3 or 4.
        at: numbers of the slices.
    """
    offset, gain = volume.unit[str(scale)]
    return ((data.low(volume, scale)[at] - offset) / gain).astype(np.float32)


def psnr(predict: Predict, data: PreparedSet, volume: Packed, scale: int, at: list[int]) -> float:
    """PSNR in dB of some slices alone: what is looked at while something is tuned.

    Args:
        predict: a network on an engine.
        data: the pairs.
        volume: one of them; its whole range of intensities counts.
        scale: of the network.
        at: numbers of the slices.
    """
    offset, gain = volume.unit[str(scale)]
    made = predict(low_unit(data, volume, scale, at)) * np.float32(gain) + np.float32(offset)
    return whole_psnr(np.asarray(data.high(volume)[at], np.float32), made, volume.span)
