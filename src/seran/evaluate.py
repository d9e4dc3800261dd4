"""Methods × the volumes of a split -> a report, with the protocol in its head."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import degrade, files
from seran.data import exchange
from seran.data.exchange import Images
from seran.data.pairs import Packed, PreparedSet
from seran.errors import BadInput
from seran.quality import metrics, paired
from seran.quality.metrics import Mask, Stack
from seran.quality.paired import Row
from seran.quality.scores import Report
from seran.sharpen import Method, Normalisation, Progress, sharpen
from seran.uncertainty import TISSUE

TISSUE_MASK = Path("tissue")
"""Instead of a folder of masks: what is tissue, by the truth."""
MASK_OFF = 0.5  # voxels by which the affine of a mask may leave the grid of the truth
UNKNOWN = "what it was trained on is not known here, so whether it saw these scans cannot be checked"


def protocol(data: PreparedSet, scale: int, split: str, slices: int = 0, inside: str = "") -> list[str]:
    """How PSNR and SSIM of `evaluate` come about, in words: what the tables of `paper/` have.

    Args:
        data: the pairs.
        scale: 2, 3 or 4.
        split: which of its volumes.
        slices: how many central slices of each are scored; 0 for all.
        inside: the mask, in words; none: every voxel counts.
    """
    which = f"the {slices} central slices" if slices else "every slice"
    stored = "as the scanner wrote it (zero-fill included)"
    crop = "cropped to its measured k-space support" if data.fourier_crop else stored
    rounded = "rounded and clipped at 0" if data.integer else "not rounded"
    scored = [
        "PSNR: whole volume, range max - min of the truth, no border left out, not rounded",
        "SSIM 3-D: Gaussian window σ 1.5 over the volume, whole map; SSIM 2-D: per slice, mean over slices",
    ]
    masked = [
        f"mask: {inside}",
        "PSNR: voxels of the mask alone, range max - min of the whole truth, not rounded",
        "SSIM 3-D: Gaussian window σ 1.5 over the whole volume, mean of the map over the mask; SSIM 2-D: "
        "window in the slices, the same",
    ]
    return [
        f"x{scale}, {degrade.named(data.degradation).words} in the plane of the slices, {rounded}",
        f"truth: {which} of each volume of the split {split!r}, {crop}, "
        "then centrally cropped to multiples of 12",
        *(masked if inside else scored),
        "means over the volumes of a contrast",
    ]


def _edges(masked: bool) -> list[str]:
    """How HFEN and GMSD come about, which no table of `paper/` has."""
    norms, mean = "the volume", "mean over slices"
    if masked:
        norms, mean = (
            "the mask",
            "over means of 2x2 pixels any of which is in the mask, mean over slices with any",
        )
    return [
        "HFEN: slices less the truth, over the truth, both filtered by a Laplacian of a Gaussian (15x15, "
        f"σ 1.5), L2 norms over {norms}; 0 is best",
        f"GMSD: per slice, range of the truth as 255, T 170, {mean}; 0 is best",
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


def refuse_unfit(
    data: PreparedSet, methods: Sequence[Method], predictions: Sequence[Path], baseline: str
) -> None:
    """Raise `BadInput` for methods that do not fit pairs or each other, without the baseline, or misnamed.

    Args:
        data: the pairs.
        methods: what is run.
        predictions: folders of what others made.
        baseline: the method that differences are from; one of these.
    """
    if not methods:
        raise BadInput("--methods: name at least one")
    scale, undone = methods[0].scale, degrade.named(data.degradation)
    for m in methods:
        fits = m.degradation == data.degradation or (not m.weights and m.anchor == undone.anchor)
        if not fits or m.scale != scale:
            raise BadInput(
                f"{m.name} undoes {m.degradation} at x{m.scale}; the data are {data.degradation} at x{scale}"
            )
    names = [*(m.name for m in methods), *map(exchange.called, predictions)]
    for name in names:  # of labels, files and folders
        if "|" in name or not name.isprintable() or name != name.strip() or not name:
            raise BadInput(
                f"{name!r}: expected a name that fits into a table, of printable characters, without | and "
                "spaces around; rename the folder or file, or give the weights another label, LABEL=FILE"
            )
    if baseline not in names and baseline == undone.baseline:
        raise BadInput(
            f"--methods: must include {baseline}, from which gains are counted; or give --baseline"
        )
    if baseline not in names:
        raise BadInput(f"--baseline {baseline}: expected one of what is scored: {', '.join(names)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"{twice[0]}: named twice; rename the folder or file, or name a method or label once")


def _checked(
    data: PreparedSet, folder: Path, volumes: Sequence[Packed], what: str, tolerance: float
) -> Images:
    """Images of all volumes, each read once: nothing is scored if one of them cannot be.

    Args:
        data: the pairs.
        folder: of the images.
        volumes: that are scored.
        what: the option that names the folder.
        tolerance: see `exchange.stack_of`.
    """
    found = exchange.images(folder, volumes, what)
    off = [exchange.stack_of(data, v, found.paths[v.name], tolerance)[1] for v in volumes]
    return dataclasses.replace(found, off=max(off))


def _words(mask: Images | Path) -> str:
    """What a mask is."""
    if isinstance(mask, Images):
        return f"the images in {mask.name}, voxels above 0"
    return (
        f"tissue, voxels where the truth is above offset + {TISSUE:g} gain; offset: 0, or its 0.1st "
        "percentile where that is negative or beyond half of the 99.9th; gain: the 99.9th less the offset"
    )


def _inside(data: PreparedSet, volume: Packed, mask: Images | Path, at: slice) -> Mask:
    """The mask of a volume in the slices that are scored; `BadInput` if it is empty.

    Args:
        data: the pairs.
        volume: one of them.
        mask: images, or `TISSUE_MASK`.
        at: the slices.
    """
    if isinstance(mask, Images):
        where = str(mask.paths[volume.name])
        inside = exchange.stack_of(data, volume, mask.paths[volume.name], MASK_OFF)[0][at] > 0
    else:
        where, truth = f"--mask {TISSUE_MASK}: {volume.name}", np.asarray(data.high(volume), np.float32)
        norm = Normalisation.of(truth)
        inside = truth[at] > norm.offset + TISSUE * norm.gain
    if not inside.any():
        raise BadInput(f"{where}: expected a mask of some voxels in the slices that are scored, got none")
    return inside


def central(length: int, slices: int) -> slice:
    """The central slices of so many; all for 0."""
    count = slices or length
    first = max(0, length - count) // 2
    return slice(first, first + count)


def evaluate(
    data: PreparedSet,
    methods: Sequence[Method],
    split: str = "test",
    progress: Progress = lambda _: None,
    slices: int = 0,
    predictions: Sequence[Path] = (),
    mask: Path | None = None,
    baseline: str = "",
) -> Report:
    """Run every method on every volume of a split, and score what it makes.

    Args:
        data: pairs.
        methods: of one scale and, where they have weights, of the data's degradation, else of its anchor; its
            baseline is among them.
        split: ``test``, or ``val`` for anything that is still being tuned.
        progress: called with 1 per volume and method.
        slices: how many central slices of each volume are scored; 0 for all.
        predictions: folders of what other programs made, see `seran.data.exchange`.
        mask: a folder of masks, or `TISSUE_MASK`; None: every voxel counts.
        baseline: the method, or folder of predictions, that differences are from; empty: that of the
            degradation, bicubic or zero-filling.

    Raises:
        BadInput: if the methods or the images do not fit, one was trained on subjects of the split, or it is
            empty.
    """
    baseline = baseline or degrade.named(data.degradation).baseline
    refuse_unfit(data, methods, predictions, baseline)
    if slices < 0:
        raise BadInput(f"--slices {slices}: must be 0 (all) or more")
    volumes, scale = data.pick(split), methods[0].scale
    if not volumes:
        raise BadInput(f"{data.root}: the split {split!r} is empty")
    for m in methods:
        refuse_trained_on(m, volumes)
    others = [_checked(data, folder, volumes, "--predictions", scale / 2) for folder in predictions]
    drawn = mask if mask in (None, TISSUE_MASK) else _checked(data, mask, volumes, "--mask", MASK_OFF)
    rows: list[Row] = []
    for volume in volumes:
        at = central(volume.shape[0], slices)
        truth, low = (np.asarray(s[at], np.float32) for s in (data.high(volume), data.low(volume, scale)))
        inside = None if drawn is None else _inside(data, volume, drawn, at)
        about: Row = {"volume": volume.source.split(".")[0]}
        about |= {n: getattr(volume, n) for n in ("name", "subject", "repository", "contrast")}
        about["voxels"] = truth.size if inside is None else int(inside.sum())

        def score(name: str, made: Stack, seconds: float | None) -> None:
            found = metrics.scores(truth, made, volume.span, inside)  # noqa: B023
            rows.append({**about, "method": name, **found, "seconds": seconds})  # noqa: B023
            progress(1)

        for m in methods:
            began = time.perf_counter()
            made = sharpen(low, m).image
            score(m.name, made, round(time.perf_counter() - began, 6))
        for images in others:
            made, _ = exchange.stack_of(data, volume, images.paths[volume.name], scale / 2)
            score(images.name, made[at], None)
    told = protocol(data, scale, split, slices, "" if drawn is None else _words(drawn))
    told += [*_edges(drawn is not None), *map(_told, others)]
    told += [f"{m.name}: {UNKNOWN}" for m in methods if m.weights and not m.scans]
    told += [paired.words(baseline)] * (len({r["method"] for r in rows}) > 1)
    stated = [*map(_stated, methods), *(_images(images, scale) for images in others)]
    return Report(told, baseline, stated, rows)


def _told(images: Images) -> str:
    off = f"; their affines are up to {images.off:.2g} voxels off the truth's" if images.off > 0.01 else ""
    return f"{images.name}: images of another program, scored voxel by voxel{off}; {UNKNOWN}"


def _stated(method: Method) -> Row:
    """What is kept of a method in the report."""
    apart = ("predict", "heads", "adapt", "scans", "spacings")
    names = [f.name for f in dataclasses.fields(Method) if f.name not in apart]
    return {"scale": method.scale} | {name: getattr(method, name) for name in names}


def _images(images: Images, scale: int) -> Row:
    """The same of what others made."""
    digest = files.sha256_of(images.paths.values())
    return {"scale": scale, "name": images.name, "images": len(images.paths), "sha256": digest}


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
