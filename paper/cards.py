"""Model cards of the shipped weights: what they are for, what they saw, how well they do, where they fail.

    seran prepare open open
    python paper/cards.py --data open            # docs/weights/NAME.md, .json and .png
    seran weights register

Scores and spacings become evidence inside the weights files, behind what is sealed.

The intervals are bootstrapped over subjects, because volumes of one subject are alike.
"""

import dataclasses
from pathlib import Path

import numpy as np
from figures import save, truth_of
from matplotlib.figure import Figure
from numpy import ndarray
from results import program
from scipy import ndimage

from seran import evaluate, files, weights
from seran.data.pairs import PreparedSet, load_prepared
from seran.degrade import DEGRADATIONS
from seran.methods import Method, method
from seran.quality import metrics
from seran.quality.paired import DRAWS, FEWEST, interval
from seran.quality.scores import Report
from seran.sharpen import sharpen
from seran.systems import SYSTEMS
from seran.weights import Spacings, Weights

NOISE = 0.05
"""Standard deviation of the noise in a failure case, as a part of the slice's range."""

USE = """Research on structural MR images whose in-plane matrix should be finer: visual inspection,
registration and segmentation at a common grid, comparison of super-resolution methods. **Not for diagnosis**,
nor for anything that follows from one: a network's detail is an estimate, not a measurement. Not for CT,
segmentations, phase or quantitative maps, nor across thick slices."""

FAILURES = """On matplotlib's sample slice, the centre enlarged: noise is taken for structure; what is finer
than the input's grid comes back as something else, without a sign of doubt; blur that was not in the training
pairs (a soft reconstruction, motion, interpolated data) stays."""


def scores(report: Report, name: str) -> list[str]:
    """A table: one row per contrast, means with their intervals."""
    lines = [
        f"| contrast | volumes (subjects) | {report.baseline} PSNR | PSNR | gain | SSIM 3-D |",
        "|---|---|---|---|---|---|",
    ]
    for contrast in sorted({r["contrast"] for r in report.rows}):
        mine, base = (
            [r for r in report.rows if (r["contrast"], r["method"]) == (contrast, m)]
            for m in (name, report.baseline)
        )
        columns: dict[str, list[float]] = {
            ".2f": [r["psnr"] for r in mine],
            "+.2f": [r["psnr"] - b["psnr"] for r, b in zip(mine, base, strict=True)],
            ".4f": [r["ssim_volume"] for r in mine],
        }
        subjects = [r["subject"] for r in mine]
        known = len(set(subjects))
        cells = [contrast, f"{len(mine)} ({known})", f"{np.mean([b['psnr'] for b in base]):.2f}"]
        for form, values in columns.items():
            cell = f"{np.mean(values):{form}}"
            if known >= FEWEST:
                low, high = interval(values, subjects)
                cell += f" [{low:{form}}, {high:{form}}]"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def failures(chosen: Method, plain: Method, path: Path) -> list[str]:
    """A picture of inputs that the weights were not made for, on matplotlib's sample; a line on each."""
    _, truth = truth_of(None, "", None)
    h, w = (n // 12 * 12 for n in truth.shape)
    truth, scale = truth[:h, :w], chosen.scale
    degrade = DEGRADATIONS[chosen.degradation]((scale, scale))
    span = float(np.ptp(truth))
    noise = np.random.default_rng(0).normal(0, NOISE * span, degrade(truth[None]).shape).astype(np.float32)
    rows, columns = np.mgrid[:h, :w]
    rings = (0.5 + 0.5 * np.cos(np.pi * ((rows - h / 2) ** 2 + (columns - w / 2) ** 2) / h)) * span
    rings = rings.astype(np.float32)
    thick = ndimage.gaussian_filter(truth, 0.8 * scale)
    cases = {
        f"noise of {NOISE:.0%}": (truth, degrade(truth[None]) + noise),
        "rings, ever finer": (rings, degrade(rings[None])),
        "input blurred before": (truth, degrade(thick[None])),
    }
    figure = Figure(figsize=(8.8, 6.8), layout="constrained")
    axes = figure.subplots(len(cases), 4)
    lines = []
    for row, (name, (right, low)) in zip(axes, cases.items(), strict=True):
        made = {m.name: sharpen(low, m).image[0] for m in (plain, chosen)}
        psnr = {m: metrics.psnr(right, image, float(np.ptp(right))) for m, image in made.items()}
        shown: dict[str, ndarray] = {name: low[0].repeat(scale, 0).repeat(scale, 1), **made, "truth": right}
        for ax, (title, image) in zip(row, shown.items(), strict=True):
            ax.imshow(image[h // 3 : h * 7 // 9, w // 3 : w * 7 // 9], cmap="gray", vmin=0, vmax=right.max())
            ax.set_title(f"{title}{f' {psnr[title]:.2f} dB' if title in psnr else ''}", fontsize=9)
            ax.set_axis_off()
        lines.append(
            f"- {name}: {plain.name} {psnr[plain.name]:.2f} dB, {chosen.name} {psnr[chosen.name]:.2f} dB"
        )
    save(figure, path)
    return lines


def spacings(held: Weights, data: PreparedSet) -> Spacings | None:
    """Those of the seen truths, None if they are not among the data."""
    digests = {s["sha256"] for s in held.card.scans}
    volumes = [v for v in data.volumes if v.sha256 in digests]
    if not volumes:
        return None
    across, *rest = zip(*(v.spacing for v in volumes), strict=True)
    fine = [x for axis in rest for x in axis]
    plane, steps = ((round(min(mm), 2), round(max(mm), 2)) for mm in (fine, across))
    return Spacings(plane, steps)


def means(report: Report, name: str) -> dict[str, dict[str, float]]:
    """Per contrast, the means over the volumes."""
    mine = [r for r in report.rows if r["method"] == name]
    return {
        contrast: {
            metric: round(float(np.mean([r[metric] for r in mine if r["contrast"] == contrast])), 4)
            for metric in metrics.METRICS
        }
        for contrast in sorted({r["contrast"] for r in mine})
    }


def seen(held: Weights) -> list[str]:
    """What the weights were trained on: sources, licences, spacings."""
    card, found = held.card, held.evidence.spacings
    lines = ["| repository | licence | contrast | scans |", "|---|---|---|---|"]
    lines += [f"| {r['repository']} | {r['licence']} | {r['contrast']} | {r['scans']} |" for r in card.data]
    if found:
        plane, across = (f"{least:.2f} to {most:.2f} mm" for least, most in (found.plane, found.across))
        lines += [
            "",
            f"Spacing of the truth {plane} in the plane (of the input {card.scale} times that), {across} "
            "from slice to slice. Intensities: magnitude images of any unit, scaled by the scan's "
            "99.9th percentile.",
        ]
    return lines


def trained(held: Weights) -> list[str]:
    """How they came about."""
    card, evidence = held.card, held.evidence
    before = ", those of the weights it started from included" if card.recipe["init"] else ""
    cost = f"at most {evidence.int8_loss:.3f} dB worse than float32 on a validation volume"
    eight = f"`--precision int8`: {len(evidence.ranges)} convolutions; {cost}"
    return [
        f"- command: `{card.command}`",
        f"- {card.patches:,} patches in {card.seconds / 60:.0f} minutes on {card.machine}, seed "
        f"{card.recipe['seed']}{before}",
        f"- validation PSNR: {', '.join(f'{c} {v:.2f} dB' for c, v in sorted(card.validation.items()))}",
        *([f"- {eight}"] if evidence.ranges else []),
        *([f"- {card.notes}"] if card.notes else []),
    ]


def document(held: Weights, report: Report, told: list[str]) -> str:
    """The card as markdown.

    Args:
        held: the weights, with their evidence.
        report: their scores on the test split.
        told: lines on where they fail.
    """
    name, card = held.path.stem, held.card
    system = SYSTEMS[card.model]
    parts: dict[str, list[str]] = {
        f"# {name}": [f"{system.title} ({system.paper}, {system.year}) for ×{card.scale}, undoing "
                      f"{DEGRADATIONS[card.degradation].words}.", "",
                      f"SHA-256 `{held.digest}`. Made by `python paper/cards.py`."],
        "## Intended use": [USE],
        "## Trained on": seen(held),
        "## Training": trained(held),
        "## Scores": [*(f"- {line}" for line in report.protocol),
                      f"- 95 % interval over subjects ({DRAWS:,} draws) in brackets where there are "
                      f"{FEWEST} or more", "", *scores(report, card.model)],
        "## Where it fails": [FAILURES, "", *told, "", f"![Failures]({name}.png)"],
    }  # fmt: skip
    return "\n\n".join("\n".join([head, "", *body]) for head, body in parts.items()) + "\n"


def main(
    data: Path,
    names: tuple[str, ...] = (),
    out: Path = Path(__file__).parents[1] / "docs/weights",
    folder: Path = weights.SHIPPED,
) -> None:
    """Write the cards of weights, and into the weights files, as evidence, what was measured for them.

    Args:
        data: a folder made by `seran prepare`.
        names: which weights; without them, all that undo the degradation of the data.
        out: folder of the cards.
        folder: of the weights files; by default those that are shipped.
    """
    pairs = load_prepared(data)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.onnx")):
        held, name = weights.read(path), path.stem
        card = held.card
        if card.degradation != pairs.degradation or (names and name not in names):
            continue
        plain = method(DEGRADATIONS[card.degradation].baseline, card.scale)
        chosen = method(card.model, card.scale, file=path)
        report = evaluate.evaluate(pairs, [plain, chosen])
        told = failures(chosen, plain, out / f"{name}.png")
        measured = {"spacings": spacings(held, pairs) or held.evidence.spacings}
        evidence = dataclasses.replace(held.evidence, **measured, scores=means(report, card.model))
        with files.atomic(path) as part:
            part.write_bytes(weights.with_evidence(held.data, evidence))
        held = dataclasses.replace(held, evidence=evidence)
        contents = {".md": document(held, report, told), ".json": report.json() + "\n"}
        for end, text in contents.items():
            with files.atomic(out / f"{name}{end}") as part:
                part.write_text(text)


if __name__ == "__main__":
    program(main)
