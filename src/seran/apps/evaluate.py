"""``seran evaluate``."""

from pathlib import Path
from typing import Annotated, Literal

from seran import evaluate as library
from seran import files, progress
from seran.apps import FLAT, Positional
from seran.data.pairs import load_prepared
from seran.engines import Engine
from seran.errors import BadInput
from seran.methods import method
from seran.weights import named, read


def evaluate(
    data: Positional[Path],
    methods: tuple[str, ...] = ("bicubic", "seran"),
    scale: Literal[2, 3, 4] = 2,
    weights: tuple[Path, ...] = (),
    split: Literal["test", "val"] = "test",
    slices: int = 0,
    out: Path | None = None,
    engine: Annotated[Engine, FLAT] = Engine(),  # noqa: B008
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
    models = [read(named(path)).card.model for path in weights]
    if len(set(models)) < len(models) or not set(models) <= {name.removesuffix("+") for name in methods}:
        raise BadInput(
            f"expected at most one weights file for each network of {', '.join(methods)}, "
            f"got files of {', '.join(models)}"
        )
    own = dict(zip(models, weights, strict=True))
    chosen = [method(n, scale, pairs.degradation, own.get(n.removesuffix("+")), engine) for n in methods]
    total = len(pairs.pick(split)) * len(chosen)
    with progress.bar(total, "volume") as bar:
        report = library.evaluate(pairs, chosen, split, bar.update, slices)
    if out is not None:
        for end, text in ((".json", report.json()), (".md", report.markdown())):
            with files.atomic(out.with_name(out.name + end)) as part:
                part.write_text(text)
    return report.markdown()
