"""``seran evaluate``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from seran import degrade, files, progress
from seran import evaluate as library
from seran.data.pairs import load_prepared
from seran.engines import Engine
from seran.errors import BadInput
from seran.methods import DEFAULT, foreign, method
from seran.sharpen import Method
from seran.systems import SYSTEMS
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
        baseline: what differences are from: a method that is scored, weights by what they are called, or a
            folder of --predictions by its name; without it bicubic, or zerofill for truncated k-space.
    """

    slices: int = 0
    mask: Annotated[Path | None, "FOLDER"] = None
    baseline: Annotated[str, "NAME"] = ""


def labelled(given: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Weights that were named on the command line: model -> what each file is called -> the file.

    The only file of a model is called as the model, one of several by its stem, and each as its label says.

    Args:
        given: files, or names of shipped weights; each may be ``LABEL=FILE``.
    """
    found: dict[str, list[tuple[str, Path]]] = {}
    for word in given:
        label, equals, file = word.partition("=")
        if not equals or Path(word).is_file():
            label, file = "", word
        found.setdefault(read(named(Path(file))).card.model, []).append((label, Path(file)))
    own: dict[str, dict[str, Path]] = {}
    for model, pairs in found.items():
        own[model] = {}
        for label, path in pairs:
            name = label or (model if len(pairs) == 1 else named(path).stem)
            if any(name in others for others in own.values()):
                raise BadInput(f"--weights: two files are called {name}; tell them apart: LABEL={path}")
            if name.endswith("+") or (name in SYSTEMS and name != model):
                raise BadInput(
                    f"--weights: {path} holds weights of {model}; call it neither as another method nor "
                    f"with a + at the end, got {name}: LABEL={path}"
                )
            own[model][name] = path
    return own


def chosen(
    methods: Sequence[str], own: dict[str, dict[str, Path]], scale: int, degradation: str, engine: Engine
) -> list[Method]:
    """Methods that are ready to run, once for each file of weights; what that is called is their name.

    Args:
        methods: names; none: the baseline of the degradation and the models of ``own``, or the default.
        own: what `labelled` gives.
        scale: 2, 3 or 4.
        degradation: of the pairs.
        engine: how networks are run.
    """
    methods = methods or (degrade.named(degradation).baseline, *(own or (DEFAULT,)))
    if unused := own.keys() - {name.removesuffix("+") for name in methods}:
        model = sorted(unused)[0]
        path = next(iter(own[model].values()))
        raise BadInput(
            f"--weights {path}: holds weights of {model}; add {model} to --methods, or leave it out"
        )
    ready = []
    for name in methods:
        plain, again = name.removesuffix("+"), "+" * name.endswith("+")
        files_of: Mapping[str, Path | None] = own.get(plain) or {plain: None}
        for label, file in files_of.items():
            ready.append(replace(method(name, scale, degradation, file, engine), name=label + again))
    return ready


def evaluate(
    data: Path,
    /,
    methods: Annotated[tuple[str, ...], "NAME ..."] = (),
    scale: Literal[2, 3, 4] = 2,
    weights: Annotated[tuple[str, ...], "FILE ..."] = (),
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
        methods: names, see `seran methods`; a trailing + means self-ensemble. Without it, the baseline and
            the methods of --weights, or seran.
        scale: which low-resolution set.
        weights: weights files, or names of shipped ones, to use instead of what is shipped. Several of one
            method are told apart by their file names without the ending, or by labels, as LABEL=FILE.
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
    ready = chosen(methods, labelled(weights), scale, pairs.degradation, engine)
    ready += [foreign(path, scale, pairs.degradation, engine) for path in others.onnx]
    tasks = len(pairs.pick(split)) * (len(ready) + len(others.predictions))
    with progress.bar(tasks, "volume") as bar:
        report = library.evaluate(
            pairs, ready, split, bar.update, scoring.slices, others.predictions, scoring.mask,
            scoring.baseline,
        )  # fmt: skip
    if out is not None:
        for end, text in ((".json", report.json()), (".md", report.markdown()), (".csv", report.csv())):
            with files.atomic(out.with_name(out.name + end)) as part:
                part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return report.markdown()
