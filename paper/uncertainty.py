"""Half-widths for results of shipped weights (`seran.uncertainty`): train the small network, calibrate it.

    python paper/errors.py DRAWN MANIFEST.csv NATIVE.csv --what plane
    python paper/uncertainty.py fit DRAWN plane.safetensors
    python paper/uncertainty.py calibrate plane.safetensors MANIFEST.csv NATIVE.csv --what plane

and the same with ``across``. The small network learns the logarithm of a quantile of the error by the pinball
loss, on half of the training subjects; the others (`HELD`) and those of validation calibrate it. The network
that makes the results was trained on all training subjects.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import isotropic as thick
import numpy as np
import torch
from acquisitions import central, sources, truth
from cards import seen
from errors import Drawn, Plane, Thick, across, in_plane
from jaxtyping import Float
from numpy import ndarray
from results import load, markdown, placed, program, write
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tyro.conf import Positional

import seran
from seran import files, methods, weights
from seran.contrast import contrast_of
from seran.data.sources import Source
from seran.engines import Engine, openvino
from seran.export import export_small
from seran.models.uncertainty import MAPS, HalfWidth
from seran.uncertainty import COVERED, TISSUE, Calibration, given
from seran.weights import UNCERTAINTY, Card, Evidence, Weights

HELD = (
    "ds002748-06", "ds002748-07", "ds002748-08", "ds002748-09", "ds002748-10", "ds000011-03", "ds000011-04",
    "openms-19", "openms-20", "mial-01", "sct-05", "sct-example", "sct-ms", "pyradiomics-brain2 (TCGA)",
    "decubitus-01",
)  # fmt: skip
"""Training subjects that the small network does not see."""
MERGED = {"b0": "EPI"}
PATCH, MARGIN, BATCH, TRIES = 96, 10, 16, 6
LIT = 0.1  # mean of a patch that is taken at once
LEAST = 2e-4  # of the range: errors below count as this
RATE, CLIP, EMA, WARMUP, START = 3e-3, 1.0, 0.998, 50, -3.0
SLICES_OF, NOISES = 6, (0.007, 0.015)
CASES: dict[str, Sequence[Plane] | Sequence[Thick]] = {
    "plane": [Plane(k, sigma) for k in (1, 2, 3, 4) for sigma in NOISES],
    "across": [Thick(k) for k in (2, 3, 4, 5, 6, 7, 8)],
}
STEM = {"plane": "seran-native", "across": "seran-isotropic"}
What = Literal["plane", "across"]
PAPER = Path(__file__).parent
COVERAGE, DOCS = PAPER / "covered.json", PAPER.parent / "docs" / "weights"
USE = """To see where a sharpened image may be wrong, and how sure its values are on average. **Not for
diagnosis**, nor to decide about a single lesion: nine of ten tissue voxels are covered on average over scans
like those of the calibration, not in each of them, and not in each place."""
CALIBRATED = """On subjects that the small network has not seen; the network itself was trained on those
of the training split. Noise of 0.7 and 1.5 % in the plane, of 1 % across slices. Covered: each left out."""
FAILS = [
    "- The truth of a simulated scan has noise of its own, which counts as error: in flat tissue half-widths "
    "are mostly that noise.",
    "- Scans whose detail ends before k-space does are covered more than need be.",
    "- What no simulation has in it, motion, distortion, a wrong profile, is not in the half-widths, either.",
]
WORST = 0.3
"""A scan of which a larger part is missed counts as this: the bound of the loss that is controlled."""
LEVELS = np.linspace(0.5, 1, 201)  # quantiles that are kept of a scan


@dataclass(frozen=True)
class Kept:
    """Of one scan and one ending: errors over the uncalibrated half-widths, in tissue."""

    subject: str
    contrast: str
    ending: str
    ratios: list[float]  # quantiles `LEVELS`
    width: float  # mean half-width before the factor, as a part of the range
    gap: float  # dB by which PSNR exceeds what half-widths say before the factor

    def missed(self, factor: float) -> float:
        """Part of the voxels."""
        return 1 - float(np.interp(factor, self.ratios, LEVELS, left=0.0))


def controlled(scans: Sequence[Kept]) -> float:
    """The least factor at which the expected miss is controlled.

    Of n subjects with losses of at most B that is (sum of losses + B) / (n + 1) <= 1 - `COVERED`.
    """
    subjects = sorted({scan.subject for scan in scans})
    low, high = 0.05, 20.0
    for _ in range(40):
        factor = math.sqrt(low * high)
        losses = [
            min(WORST, float(np.mean([s.missed(factor) for s in scans if s.subject == subject])))
            for subject in subjects
        ]
        enough = (sum(losses) + WORST) / (len(subjects) + 1) <= 1 - COVERED
        low, high = (low, factor) if enough else (factor, high)
    return high


def calibration(scans: Sequence[Kept]) -> Calibration:
    """Of an ending."""
    factor, subjects = controlled(scans), sorted({scan.subject for scan in scans})
    gaps = sorted(min(s.gap for s in scans if s.subject == subject) for subject in subjects)
    rank = math.floor((1 - COVERED) * (len(subjects) + 1))  # of the least of so many, one more will exceed it
    gap = gaps[max(rank, 1) - 1] - 20 * math.log10(1 / factor)
    most = factor * max(scan.width for scan in scans)
    return Calibration(round(factor, 4), round(gap, 2), round(most, 4), len(subjects))


def kept(drawn: Drawn, width: Float[ndarray, "n h w"], source: Source) -> Kept | None:
    """Of what was drawn of a scan; None without tissue."""
    inside = drawn.high > TISSUE
    if not inside.any():
        return None
    error, half = drawn.error[inside].astype(np.float64), width[inside].astype(np.float64)
    ratios = np.quantile(error / half, LEVELS).round(4).tolist()
    gap = -10 * np.log10(np.square(error).mean()) + 10 * np.log10(np.square(half).mean())
    return Kept(source.subject, source.contrast, drawn.ending, ratios, float(half.mean()), float(gap))


Predict = Callable[[Float[ndarray, "n m h w"]], Float[ndarray, "n h w"]]


def drawn_of(source: Source, what: What, cases: Sequence[Plane | Thick], engine: Engine) -> Iterator[tuple]:
    """Each acquisition of a scan with what the library gets wrong of it; the same noise at every call."""
    network = methods.across(methods.DEFAULT, None, engine)
    if what == "plane":
        x, fine = truth(source, SLICES_OF), False
    else:
        x, fine = thick.truth(source, 2 * SLICES_OF)
    for case in cases:
        rng, made = np.random.default_rng(0), None
        if isinstance(case, Plane):
            made = in_plane(central(x, SLICES_OF), case, rng, engine)
        else:
            planes = range(x.shape[2])[:: max(1, x.shape[2] // SLICES_OF)]
            made = across(x, fine, case, rng, network, planes)
        if made is not None:
            yield case, made


def halves(drawn: Drawn, predict: Predict) -> Float[ndarray, "n h w"]:
    """Half-widths before calibration."""
    return np.exp(predict(given(drawn.high, drawn.told, drawn.ending)))


Example = tuple[Float[ndarray, "n h w"], Float[ndarray, "n h w"], Float[ndarray, "n m *h"]]
"""Slices of results, their errors, and for each all maps but the first, which do not vary along columns."""


def examples(folder: Path) -> dict[str, dict[str, list[Example]]]:
    """What was drawn, by contrast and subject."""
    found: dict[str, dict[str, list[Example]]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            facts, told = json.loads(str(file["facts"])), file["told"]
            if facts["split"] == "train" and facts["subject"] not in HELD:
                across = told.ndim == 2
                ending = f"k{round(8 * told[3, 0])}" if across else f"x{round(4 * told[4])}"
                high = file["high"]
                maps = given(high.astype(np.float32), told, ending)[:, 1:, :, 0]
                contrast = MERGED.get(facts["contrast"], facts["contrast"])
                own = found.setdefault(contrast, {}).setdefault(facts["subject"], [])
                own.append((high, file["error"], (maps if across else maps[:, :, 0]).copy()))
    return found


def patch(one: Example, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """Maps and errors of a place that is mostly not background, mirrored or turned at random."""
    high, error, told = one
    i, (h, w) = rng.integers(len(high)), high.shape[1:]
    for _ in range(TRIES):
        y, x = int(rng.integers(h - PATCH + 1)), int(rng.integers(w - PATCH + 1))
        at = np.s_[i, y : y + PATCH, x : x + PATCH]
        if high[at][::4, ::4].astype(np.float32).mean() > LIT:
            break
    across = told.ndim == 3
    rows = told[i][:, y : y + PATCH, None] if across else told[i][:, None, None]
    more = np.broadcast_to(rows, (MAPS - 1, PATCH, PATCH))
    maps, off = np.concatenate([high[at][None], more]).astype(np.float32), error[at].astype(np.float32)
    if rng.random() < 0.5:
        maps, off = maps[:, :, ::-1], off[:, ::-1]
    if not across and rng.random() < 0.5:
        maps, off = maps.swapaxes(1, 2), off.swapaxes(0, 1)
    return maps, off


def batch(found: dict[str, dict[str, list[Example]]], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Patches: of all contrasts alike, then of all their subjects."""
    made: list[tuple[ndarray, ndarray]] = []
    while len(made) < BATCH:
        group = found[sorted(found)[rng.integers(len(found))]]
        own = group[sorted(group)[rng.integers(len(group))]]
        one = own[rng.integers(len(own))]
        if min(one[0].shape[1:]) >= PATCH:
            made.append(patch(one, rng))
    maps, off = (torch.from_numpy(np.ascontiguousarray(np.stack(side))) for side in zip(*made, strict=True))
    return maps, off


def pinball(log: Float[Tensor, "b h w"], error: Float[Tensor, "b h w"]) -> tuple[Tensor, Tensor]:
    """The loss whose minimum is the quantile `COVERED` of the logarithm of the error; how much is covered."""
    d = (error.clamp(min=LEAST).log() - log)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return torch.maximum(COVERED * d, (COVERED - 1) * d).mean(), (d < 0).float().mean()


def fit(drawn: Path, out: Path, minutes: float = 10, seed: int = 0) -> None:
    """Train the small network.

    Args:
        drawn: folder that `errors.py` filled.
        out: the averaged weights, .safetensors.
        minutes: of training; the rate falls over them.
        seed: of what is drawn.
    """
    rng, found = np.random.default_rng(seed), examples(drawn)
    placed(out)
    torch.manual_seed(seed)
    network = HalfWidth().to(memory_format=torch.channels_last)
    torch.nn.init.constant_(network.last.bias, START)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    average = {k: v.clone() for k, v in network.state_dict().items()}
    began, step, told = time.monotonic(), 0, []
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1.0, (step + 1) / WARMUP) * (0.002 + 0.499 * (1 + math.cos(math.pi * done)))
            )
        maps, error = batch(found, rng)
        with torch.autocast("cpu", torch.bfloat16):
            log = network(maps.contiguous(memory_format=torch.channels_last))[:, 0]
        loss, covered = pinball(log.float(), error)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        part = 1 - min(EMA, (step + 1) / (step + 10))
        for name, value in network.state_dict().items():
            average[name].lerp_(value, part)
        told.append((loss.item(), covered.item()))
        step += 1
        if step % 100 == 0:
            a, b = np.mean(told[-100:], 0)
            sys.stderr.write(f"step {step}, {done:.0%}: loss {a:.4f}, covered {b:.3f}\n")
    facts = {"patches": str(BATCH * step), "seconds": f"{time.monotonic() - began:.0f}"}
    save_file({k: v.contiguous() for k, v in average.items()}, out, facts)


def calibrate(
    trained: Path,
    lists: Positional[tuple[Path, ...]],
    what: What = "plane",
    out: Path | None = None,
    machine: str = "one CPU core with AMX",
    threads: int = 0,
) -> None:
    """Export the small network with the factors that calibration subjects give.

    Args:
        trained: what `fit` made; what is found of each scan is kept beside it (.json) for the next call.
        lists: CSV files of scans, as ``shared/data`` has them.
        what: plane or across.
        out: the weights file; without it that which is shipped.
        machine: what trained, in words.
        threads: of the CPU; 0: all.
    """
    of = weights.read(weights.shipped()[STEM[what]])
    network = HalfWidth()
    with safe_open(trained, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        facts = file.metadata()
    card = Card(
        model=UNCERTAINTY, scale=1, degradation=of.card.degradation, anchor=of.card.anchor,
        options={"of": of.digest}, residual=False, recipe={"init": "", "seed": 0, "held": list(HELD)},
        scans=[s for s in of.card.scans if s["subject"] not in HELD], patches=int(facts["patches"]),
        seconds=float(facts["seconds"]), machine=machine,
        command=f"python paper/uncertainty.py fit DRAWN FILE, of what paper/errors.py --what {what} drew",
        validation={}, export_error=math.nan, version=seran.__version__,
    )  # fmt: skip
    path = out or weights.SHIPPED / f"{STEM[what]}-{UNCERTAINTY}.onnx"
    export_small(network, placed(path), card)
    engine = Engine(threads=threads)
    predict = openvino.load(weights.read(path), engine).predict
    beside = trained.with_suffix(".json")
    rows = load(beside, [files.sha256(trained), *map(str, CASES[what])])
    for source in (s for split in ("train", "val") for s in sources(lists, split)):
        if (source.split == "val" or source.subject in HELD) and source.path.name not in rows:
            own = rows[source.path.name] = {"scans": []}
            for case, drawn in drawn_of(source, what, CASES[what], engine):
                if one := kept(drawn, halves(drawn, predict), source):
                    own["scans"].append(asdict(one))
                    said = f"{1 - one.missed(1.0):.3f} covered before, width {one.width:.4f}"
                    sys.stderr.write(f"{source.path.name}, {case}: {said}\n")
            write(beside, [files.sha256(trained), *map(str, CASES[what])], rows, lambda _: [])
    found: dict[str, list[Kept]] = {}
    for facts_of in (scan for row in rows.values() for scan in row["scans"]):
        one = Kept(**facts_of)
        found.setdefault(f"{one.ending} {contrast_of(one.contrast)}", []).append(one)
    export_small(network, path, replace(card, validation=before(found, lists)))
    widths = {ending: asdict(calibration(scans)) for ending, scans in sorted(found.items())}
    table = json.loads(COVERAGE.read_text())["results"].values() if COVERAGE.is_file() else []
    evidence = Evidence(of.evidence.spacings, scores=scores(list(table), widths), widths=widths)
    with files.atomic(path) as part:
        part.write_bytes(weights.with_evidence(weights.read(path).data, evidence))
    if out is None:
        with files.atomic(DOCS / f"{path.stem}.md") as part:
            part.write_text(document(weights.read(path), of, found))
    sys.stdout.write("\n".join(left_out(found)) + "\n")


def before(found: dict[str, list[Kept]], lists: Sequence[Path]) -> dict[str, float]:
    """Part of the tissue voxels of validation scans that is covered without any factor, by contrast."""
    subjects = {source.subject for source in sources(lists, "val")}
    own = [one for scans in found.values() for one in scans if one.subject in subjects]
    return {
        contrast: round(float(np.mean([1 - one.missed(1.0) for one in own if one.contrast == contrast])), 4)
        for contrast in sorted({one.contrast for one in own})
    }


def scores(
    rows: Sequence[dict[str, Any]], widths: dict[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Part of the tissue voxels that is covered on the test split, by contrast and ending (`covered.py`)."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, cell in row["cells"].items():
            ending = name.replace("slices ", "k")
            if row["split"] == "test" and f"{ending} {contrast_of(row['contrast'])}" in widths:
                found.setdefault(row["contrast"], {}).setdefault(f"covered {ending}", []).append(
                    cell["tissue"]
                )
    return {c: {n: round(float(np.mean(v)), 4) for n, v in by.items()} for c, by in sorted(found.items())}


def left_out(found: dict[str, list[Kept]]) -> list[str]:
    """A table: what is covered of each subject by the factor that the others give."""
    body = []
    for ending, scans in sorted(found.items()):
        parts = []
        for subject in sorted({scan.subject for scan in scans}):
            factor = controlled([scan for scan in scans if scan.subject != subject])
            parts.append(1 - float(np.mean([s.missed(factor) for s in scans if s.subject == subject])))
        low, high = np.quantile(parts, (0.1, 0.9))
        one = calibration(scans)
        cells = f"{one.factor:.3f}", f"{one.subjects}", f"{np.mean(parts):.1%}", f"{low:.1%} to {high:.1%}"
        body.append([ending, *cells, f"{min(parts):.1%}", f"{one.psnr:+.1f} dB"])
    columns = ("ending", "factor", "subjects", "covered", "8 of 10 subjects", "least", "PSNR bound")
    return markdown(columns, body)


def document(held: Weights, of: Weights, found: dict[str, list[Kept]]) -> str:
    """The card as markdown."""
    made = f"SHA-256 `{held.digest}`. Made by `python paper/uncertainty.py calibrate`."
    known = ", ".join(f"{c} {v:.1%}" for c, v in held.card.validation.items())
    gains = [
        f"- {c}: {', '.join(f'{n} {v:.1%}' for n, v in by.items())}" for c, by in held.evidence.scores.items()
    ]
    minutes = f"{held.card.patches:,} patches in {held.card.seconds / 60:.0f} minutes on {held.card.machine}"
    parts = {
        f"# {held.path.stem}": [f"How far results of [{of.path.stem}]({of.path.stem}.md) may be off, see "
                                "`seran.uncertainty`.", "", made],
        "## Intended use": [USE],
        "## Trained on": seen(held),
        "## Training": [f"- command: `{held.card.command}`", f"- {minutes}, seed 0",
                        f"- covered on validation scans before calibration: {known}"],
        "## Calibration": [CALIBRATED, "", *left_out(found)],
        "## Scores": ["Part of the tissue voxels that is covered, of the test split "
                      "([all of it](../../paper/covered.md)).", "", *gains],
        "## Where it fails": FAILS,
    }  # fmt: skip
    return "\n\n".join("\n".join([head, "", *body]) for head, body in parts.items()) + "\n"


if __name__ == "__main__":
    program(fit, calibrate)
