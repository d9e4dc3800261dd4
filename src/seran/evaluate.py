"""Methods × the volumes of a split -> a report, with the protocol in its head."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade
from seran.data.pairs import Packed, PreparedSet
from seran.errors import BadInput
from seran.quality import metrics
from seran.sharpen import Method, Normalisation, Progress, sharpen

Row = dict[str, Any]
EDGES = (
    "HFEN: slices less the truth, over the truth, both filtered by a Laplacian of a Gaussian (15x15, σ 1.5), "
    "L2 norms over the volume; GMSD: per slice, range of the truth as 255, T 170, mean over slices; 0 is best"
)
"""Of the metrics that no table of `paper/` has, whose protocol is the rest."""


@dataclass(frozen=True)
class Report:
    """Scores: one row per volume and method."""

    protocol: list[str]  # how the pairs and the scores were made, in words
    baseline: str  # the method that gains are counted from
    methods: list[Row]  # what was run, without the predictors
    rows: list[Row]  # volume, name, subject, contrast, method, the metrics, and the seconds that it took

    def json(self) -> str:
        """Everything."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def means(self) -> list[Row]:
        """Mean over the volumes of a contrast, per method, in the rows' order."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for r in self.rows:
            groups.setdefault((r["contrast"], r["method"]), []).append(r)
        return [
            {"contrast": contrast, "method": name, "volumes": len(group)}
            | {m: float(np.mean([r[m] for r in group])) for m in metrics.METRICS}
            for (contrast, name), group in sorted(groups.items(), key=lambda item: item[0][0])
        ]

    def markdown(self) -> str:
        """The protocol, the table of means and the table of volumes."""
        psnr = {"method": "{method}", "PSNR": "{psnr:.2f}", f"over {self.baseline}": "{gain:+.2f}"}
        more = {"SSIM 3-D": "{ssim_volume:.4f}", "SSIM 2-D": "{ssim_slice:.4f}"}
        more |= {"HFEN": "{hfen:.4f}", "GMSD": "{gmsd:.4f}"}
        means = {"contrast": "{contrast}", "volumes": "{volumes}", **psnr, **more}
        volumes = {"volume": "{volume}", "contrast": "{contrast}", **psnr}
        lines = [f"- {text}" for text in self.protocol]
        lines += self._table(means, self.means(), "contrast") + self._table(volumes, self.rows, "name")
        return "\n".join(lines) + "\n"

    def _table(self, columns: dict[str, str], rows: list[Row], key: str) -> list[str]:
        """Columns by title, each with the format of its cells; rows with one ``key`` share a baseline."""
        base = {r[key]: r["psnr"] for r in rows if r["method"] == self.baseline}
        head, line = (f"| {' | '.join(cells)} |" for cells in (columns, columns.values()))
        cells = [line.format(**r, gain=r["psnr"] - base[r[key]]) for r in rows]
        return ["", head, "|---" * len(columns) + "|", *cells]


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
    rounded = "rounded and clipped at 0" if data.integer else "not rounded"
    return [
        f"x{scale}, {degrade.named(data.degradation).words} in the plane of the slices, {rounded}",
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
        BadInput: if the methods do not fit, one was trained on subjects of the split, or it is empty.
    """
    if not methods:
        raise BadInput("--methods: name at least one")
    if slices < 0:
        raise BadInput(f"--slices {slices}: must be 0 (all) or more")
    scale, undone = methods[0].scale, degrade.named(data.degradation)
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
    rows = []
    for volume in volumes:
        about = {"volume": volume.source.split(".")[0]}
        about |= {name: getattr(volume, name) for name in ("name", "subject", "contrast")}
        stacks = data.high(volume), data.low(volume, scale)
        count = slices or len(stacks[0])
        first = max(0, len(stacks[0]) - count) // 2
        truth, low = (np.asarray(stack[first : first + count], np.float32) for stack in stacks)
        for m in methods:
            began = time.perf_counter()
            made = sharpen(low, m).image
            seconds = round(time.perf_counter() - began, 6)
            found = metrics.scores(truth, made, volume.span)
            rows.append({**about, "method": m.name, **found, "seconds": seconds})
            progress(1)
    facts = [
        f.name
        for f in dataclasses.fields(Method)
        if f.name not in ("predict", "heads", "adapt", "scans", "spacings")
    ]
    stated = [{"scale": m.scale} | {name: getattr(m, name) for name in facts} for m in methods]
    told = [*protocol(data, scale, split, slices), EDGES]
    return Report(told, undone.baseline, stated, rows)


def low_unit(data: PreparedSet, volume: Packed, scale: int, at: list[int]) -> Float[ndarray, "n h w"]:
    """Some low-resolution slices of a volume, as a network sees them.

    Args:
        data: the pairs.
        volume: one of them.
        scale: 2, 3 or 4.
        at: numbers of the slices.
    """
    return Normalisation(*volume.unit[str(scale)]).apply(data.low(volume, scale)[at])


def psnr(
    predict: Callable[[ndarray], ndarray], data: PreparedSet, volume: Packed, scale: int, at: list[int]
) -> float:
    """PSNR in dB of some slices alone: what is looked at while something is tuned.

    Args:
        predict: a network on an engine.
        data: the pairs.
        volume: one of them; its whole range of intensities counts.
        scale: of the network.
        at: numbers of the slices.
    """
    made = Normalisation(*volume.unit[str(scale)]).undo(predict(low_unit(data, volume, scale, at)))
    return metrics.psnr(np.asarray(data.high(volume)[at], np.float32), made, volume.span)
