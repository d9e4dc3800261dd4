"""``seran evaluate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from seran import evaluate as library
from seran import files, progress
from seran.data.pairs import load_prepared
from seran.engines import Engine
from seran.errors import BadInput
from seran.methods import foreign, method
from seran.weights import named, read


@dataclass(frozen=True)
class Others:
    """What other programs make.

    Attributes:
        predictions: folders of images, NAME.nii.gz or another format, or arrays NAME.npy, for every volume;
            each folder counts as a method of its name.
        onnx: networks of other programs, called as their files: a slice (1, 1, h, w) of float32, about
            [0, 1], to one that is finer, for any h and w.
    """

    predictions: Annotated[tuple[Path, ...], "FOLDER ..."] = ()
    onnx: Annotated[tuple[Path, ...], "FILE ..."] = ()


@dataclass(frozen=True)
class Scoring:
    """What is scored, and against what.

    Attributes:
        slices: how many central slices of each volume to score; 0 for all.
        mask: score voxels of a mask alone: a folder of images named alike, or `tissue`, by the truth.
        baseline: what differences are from: a method that is scored, or a folder of --predictions by its
            name; without it bicubic, or zerofill for truncated k-space.
    """

    slices: int = 0
    mask: Annotated[Path | None, "FOLDER"] = None
    baseline: Annotated[str, "NAME"] = ""


def evaluate(
    data: Path,
    /,
    methods: Annotated[tuple[str, ...], "NAME ..."] = ("bicubic", "seran"),
    scale: Literal[2, 3, 4] = 2,
    weights: Annotated[tuple[Path, ...], "FILE ..."] = (),
    split: Literal["test", "val"] = "test",
    out: Annotated[Path | None, "NAME"] = None,
    others: Others = Others(),
    scoring: Scoring = Scoring(),
    engine: Engine = Engine(),  # noqa: B008
) -> str:
    """Score methods on a prepared set: PSNR, SSIM, HFEN and GMSD, and paired differences from a baseline.

    Other programs are scored by what they make of `seran prepare to-nifti PAIRS FOLDER`: one image for each
    volume, called NAME.nii.gz (or any other format that seran reads) as its input, or an array NAME.npy
    (slices, rows, columns). All must be there, on the grid of the truth.

    Args:
        data: a folder made by `seran prepare`.
        methods: names, see `seran methods`; a trailing + means self-ensemble.
        scale: which low-resolution set.
        weights: weights files to use instead of the shipped ones, at most one for each network.
        split: val while anything is being tuned, test for numbers to report.
        out: where to write the report, as NAME.json, NAME.md and, per subject, NAME.csv; without it, it is
            only printed.
        others: what other programs make.
        scoring: what is scored.
        engine: how networks are run.
    """
    if out is not None and not out.parent.is_dir():
        raise BadInput(f"--out {out}: no such folder; create {out.parent} first")
    pairs = load_prepared(data)
    own = {read(named(path)).card.model: path for path in weights}
    if len(own) < len(weights) or not set(own) <= {name.removesuffix("+") for name in methods}:
        of = ", ".join(read(named(path)).card.model for path in weights)
        raise BadInput(
            f"--weights: give at most one file for each of {', '.join(methods)}; these are of {of}"
        )
    chosen = [method(n, scale, pairs.degradation, own.get(n.removesuffix("+")), engine) for n in methods]
    chosen += [foreign(path, scale, pairs.degradation, engine) for path in others.onnx]
    tasks = len(pairs.pick(split)) * (len(chosen) + len(others.predictions))
    with progress.bar(tasks, "volume") as bar:
        report = library.evaluate(
            pairs, chosen, split, bar.update, scoring.slices, others.predictions, scoring.mask,
            scoring.baseline,
        )  # fmt: skip
    if out is not None:
        for end, text in ((".json", report.json()), (".md", report.markdown()), (".csv", report.csv())):
            with files.atomic(out.with_name(out.name + end)) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return report.markdown()
