"""``seran evaluate``."""

from pathlib import Path
from typing import Annotated, Literal

from seran import evaluate as library
from seran import files, progress
from seran.data.pairs import load_prepared
from seran.engines import Engine
from seran.errors import BadInput
from seran.methods import method
from seran.weights import named, read


def evaluate(
    data: Path,
    /,
    methods: Annotated[tuple[str, ...], "NAME ..."] = ("bicubic", "seran"),
    scale: Literal[2, 3, 4] = 2,
    weights: Annotated[tuple[Path, ...], "FILE ..."] = (),
    split: Literal["test", "val"] = "test",
    slices: int = 0,
    predictions: Annotated[tuple[Path, ...], "FOLDER ..."] = (),
    mask: Annotated[Path | None, "FOLDER"] = None,
    out: Annotated[Path | None, "NAME"] = None,
    engine: Engine = Engine(),  # noqa: B008
) -> str:
    """Score methods on a prepared set: PSNR, SSIM, HFEN and GMSD per contrast, and the gain over bicubic.

    Other programs are scored by what they make of `seran prepare to-nifti PAIRS FOLDER`: one image for each
    volume, called NAME.nii.gz (or any other format that seran reads) as its input, or an array NAME.npy
    (slices, rows, columns). All must be there, on the grid of the truth.

    Args:
        data: a folder made by `seran prepare`.
        methods: names, see `seran methods`; a trailing + means self-ensemble.
        scale: which low-resolution set.
        weights: weights files to use instead of the shipped ones, at most one for each network.
        split: val while anything is being tuned, test for numbers to report.
        slices: how many central slices of each volume to score; 0 for all.
        predictions: folders of what other programs made; each counts as a method called as the folder.
        mask: score voxels of a mask alone: a folder of images named alike, or `tissue`, by the truth.
        out: where to write the report, as NAME.json and NAME.md; without it, it is only printed.
        engine: how networks are run.
    """
    pairs = load_prepared(data)
    own = {read(named(path)).card.model: path for path in weights}
    if len(own) < len(weights) or not set(own) <= {name.removesuffix("+") for name in methods}:
        of = ", ".join(read(named(path)).card.model for path in weights)
        raise BadInput(
            f"--weights: give at most one file for each of {', '.join(methods)}; these are of {of}"
        )
    chosen = [method(n, scale, pairs.degradation, own.get(n.removesuffix("+")), engine) for n in methods]
    with progress.bar(len(pairs.pick(split)) * (len(chosen) + len(predictions)), "volume") as bar:
        report = library.evaluate(pairs, chosen, split, bar.update, slices, predictions, mask)
    if out is not None:
        for end, text in ((".json", report.json()), (".md", report.markdown())):
            with files.atomic(out.with_name(out.name + end)) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return report.markdown()
