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
    out: Annotated[Path | None, "NAME"] = None,
    engine: Engine = Engine(),  # noqa: B008
) -> str:
    """Score methods on a prepared set: PSNR and SSIM per contrast and volume, and the gain over bicubic.

    Args:
        data: a folder made by `seran prepare`.
        methods: names, see `seran methods`; a trailing + means self-ensemble.
        scale: which low-resolution set.
        weights: weights files to use instead of the shipped ones, at most one for each network.
        split: val while anything is being tuned, test for numbers to report.
        slices: how many central slices of each volume to score; 0 for all.
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
    with progress.bar(len(pairs.pick(split)) * len(chosen), "volume") as bar:
        report = library.evaluate(pairs, chosen, split, bar.update, slices)
    if out is not None:
        for end, text in ((".json", report.json()), (".md", report.markdown())):
            with files.atomic(out.with_name(out.name + end)) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return report.markdown()
