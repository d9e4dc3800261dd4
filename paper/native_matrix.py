"""Every method on every acquisition: gain over zero-filling on simulated scans, at x2.

    python paper/native_matrix.py MANIFEST.csv NATIVE.csv                 # the test split
    python paper/native_matrix.py MANIFEST.csv NATIVE.csv --split val     # while something is being made

A scan's central slices, on the k-space that was measured of them and with a 99.9th percentile of 1, are the
truth; half of each axis of their k-space is acquired. What is made of that is given to a method as a user
gives a scan: noise, window and acquired part are measured by the library; ``--oracle`` states them instead.

Results lie about other voxel centres than the truth where method and acquisition have different anchors (see
`seran.grid`): they are moved by half of a fine voxel (`moved`). PSNR of the slices of a volume together, both
images held at 0 from below. Rows of finished volumes are kept between calls, method by method.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cards import FEWEST, interval
from figures import save
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from numpy import ndarray
from results import Rows, load, markdown, ordered, program, write
from scipy import fft, ndimage
from tyro.conf import Positional

from seran import methods, weights
from seran.acquisition import NONE, Acquisition, Window
from seran.data.prepare import PrepareOptions, high_resolution
from seran.data.sources import Source, find, read_source
from seran.degrade import Bicubic
from seran.engines import Engine
from seran.errors import BadInput
from seran.grid import Anchor
from seran.job.options import Options, ReadOptions, Scanner, Target
from seran.job.run import Steps
from seran.measure import Measured
from seran.native import nearest
from seran.sharpen import sharpen
from seran.volume import Volume

SCALE = 2
DEPTH = 0.04
"""How deep in the head the made mask begins, as a part of the shorter side: in bright tissue."""
HEAD = 0.1
"""Part of the range above which a smoothed slice shows the head."""
LOSS = 0.05
"""dB that a volume may lose against zero-filling."""


@dataclass(frozen=True)
class Case:
    """A column: how the given image is made of the truth.

    Attributes:
        title: in words.
        window: the scanner's filter.
        sigma: of the noise.
        filled: by the scanner, to the grid of the truth, which the result keeps.
        masked: by a mask of the head, before and after the acquisition.
        bicubic: reduced by antialiased bicubic interpolation instead of a scanner.
    """

    title: str
    window: Window = NONE
    sigma: float = 0.0
    filled: bool = False
    masked: bool = False
    bicubic: bool = False

    @property
    def scale(self) -> int:
        """What is asked for."""
        return 1 if self.filled else SCALE

    @property
    def anchor(self) -> Anchor:
        """What the given grid has in common with that of the truth."""
        return "corner" if self.bicubic else "center"


CASES = {
    "bicubic": Case("bicubic", bicubic=True),
    "truncation": Case("truncation"),
    "hamming-1": Case("Hamming 0.46, 1 %", Window("hamming", 0.46), 0.01),
    "tukey-2": Case("Tukey 0.4, 2 %", Window("tukey", 0.4), 0.02),
    "fermi-1": Case("Fermi 0.9 0.06, 1 %", Window("fermi", 0.9, 0.06), 0.01),
    "filled-tukey-2": Case("Tukey 0.4, 2 %, filled, ×1", Window("tukey", 0.4), 0.02, filled=True),
    "noise-1": Case("noise 1 %", sigma=0.01),
    "noise-2": Case("noise 2 %", sigma=0.02),
    "noise-3": Case("noise 3 %", sigma=0.03),
    "noise-5": Case("noise 5 %", sigma=0.05),
    "masked-1": Case("masked, 1 %", sigma=0.01, masked=True),
}


@dataclass(frozen=True)
class Way:
    """A row: what a user asks the library for.

    Attributes:
        title: in words.
        method: its name.
        acquisition: as `Scanner` has it.
        ensemble: over the symmetries of a slice.
    """

    title: str
    method: str
    acquisition: str = "auto"
    ensemble: bool = False

    def options(self, scale: int, scanner: Scanner | None = None) -> Options:
        """As the command has them; native weights may be told what is known of the scan."""
        known = scanner if scanner and self.native else Scanner(self.acquisition)  # type: ignore[arg-type]
        reading = ReadOptions(label_check=False)
        return Options(self.method, None, self.ensemble, target=Target(scale), scanner=known, read=reading)

    @property
    def native(self) -> bool:
        """Whether it knows what a scanner does."""
        return methods.is_network(self.method) and self.acquisition == "auto"


BASE = "zerofill"
WAYS = {
    BASE: Way("zero-filling", "zerofill"),
    "bicubic": Way("bicubic", "bicubic"),
    "nlm": Way("NLM", "nlm"),
    "seran-bd": Way("SERAN-BD", "seran", "bicubic"),
    "seran-td": Way("SERAN-TD", "seran", "truncation"),
    "native": Way("native", "seran"),
    "native+": Way("native+", "seran", ensemble=True),
}
BARS = {
    "truncation": {"T2": 3.6, "PD": 3.2, "T1": 2.4},
    "noise-1": {"T2": 3.0, "PD": 2.8, "T1": 2.2},
    "noise-3": {"T2": 2.8, "PD": 2.6, "T1": 2.2},
    "noise-5": {"T2": 3.2, "PD": 3.0, "T1": 2.6},
    "hamming-1": {"T2": 5.5, "PD": 5.0, "T1": 3.8},
    "filled-tukey-2": {"T2": 3.0, "PD": 2.8, "T1": 2.2},
}
"""Gains that the native network is to reach on the test split, dB."""
PROTOCOL = (
    "Gain over zero-filling in dB, x2; split {split}, the {slices} central slices of each volume, PSNR of "
    "them together, both images held at 0 from below; truth: {grid}, its 99.9th "
    "percentile 1",
    "Acquired: half of each axis; noise as a part of the 99.9th percentile, before the filter; the same "
    "noise for every method; {known}",
    "Weights: {weights}",
    "95 % intervals over subjects in brackets, where there are {fewest} or more; then the worst volume",
)


def sources(lists: Sequence[Path], split: str) -> list[Source]:
    """The scans of a split, of all lists."""
    found = [s for one in lists for s in find(one) if s.split == split]
    if not found:
        raise BadInput(f"{', '.join(map(str, lists))}: no scan of the split {split}")
    return found


def central(stack: Float[ndarray, "n h w"], slices: int) -> Float[ndarray, "m h w"]:
    """The central slices of a stack; all for 0."""
    first = max(0, (len(stack) - slices) // 2) if slices else 0
    return stack[first : first + slices] if slices else stack


def truth(source: Source, slices: int, stored: bool = False) -> Float[ndarray, "n h w"]:
    """A scan's central slices, their 99.9th percentile 1, on the k-space that was measured, or as stored."""
    stack, _, _ = high_resolution(read_source(source), PrepareOptions(fourier_crop=not stored), None)
    return central(stack / np.float32(np.percentile(stack, 99.9)), slices).astype(np.float32)


def head(x: Float[ndarray, "n h w"]) -> Bool[ndarray, "n h w"]:
    """The head in each slice, but for its outermost `DEPTH`: an edge that no scanner made."""
    made = np.zeros(x.shape, bool)
    for mask, one in zip(made, x, strict=True):
        labels, count = ndimage.label(ndimage.uniform_filter(one, 5) > HEAD)
        if count:
            largest = np.bincount(labels.ravel())[1:].argmax() + 1
            part = np.pad(ndimage.binary_fill_holes(labels == largest), 1)
            mask[...] = ndimage.distance_transform_edt(part)[1:-1, 1:-1] > DEPTH * min(one.shape)
    return made


def acquired(x: Float[ndarray, "n h w"], case: Case) -> tuple[ndarray, ndarray]:
    """The truth of a case, and the image that is given."""
    h, w = x.shape[1] // SCALE, x.shape[2] // SCALE
    if case.bicubic:
        return x, Bicubic((SCALE, SCALE))(x)
    mask = head(x) if case.masked else np.ones(x.shape, bool)
    x = x * mask
    given = (x.shape[1], x.shape[2]) if case.filled else (h, w)
    s = Acquisition((h, w), case.window, given)(x, case.sigma, np.random.default_rng(0))
    return x, (s * nearest(mask, given)).astype(np.float32)


def moved(image: Float[ndarray, "*n h w"], by: float) -> Float[ndarray, "*n h w"]:
    """Slices sampled ``by`` pixels further along rows and columns, exactly.

    They are mirrored about their outer edges, so that what leaves at one side does not come in at the other.

    >>> moved(np.full((2, 4, 4), 3.0), 0.5).round(6).mean().item()
    3.0
    """
    if by == 0:
        return image
    for axis in (-2, -1):
        n = image.shape[axis]
        doubled = np.concatenate([image, np.flip(image, axis)], axis)
        ramp = np.exp(2j * np.pi * fft.rfftfreq(2 * n) * by)
        lines = fft.rfft(np.moveaxis(doubled, axis, -1).astype(np.float64)) * ramp
        image = np.moveaxis(fft.irfft(lines, 2 * n)[..., :n], -1, axis)
    return image


def aligned(
    made: Float[ndarray, "n h w"], anchor: Anchor, given: Anchor, scale: int
) -> Float[ndarray, "n h w"]:
    """A result about the voxel centres of the truth.

    Args:
        made: ``scale`` times as fine as the image it is made of.
        anchor: what its grid has in common with that of this image.
        given: what the grid of this image has in common with that of the truth.
        scale: of the result.
    """
    return moved(made, ((anchor == "corner") - (given == "corner")) * (scale - 1) / 2)


def psnr(x: Float[ndarray, "n h w"], made: Float[ndarray, "n h w"]) -> float:
    """Of slices together, against a peak of 1."""
    error = float(((np.maximum(made, 0) - np.maximum(x, 0)) ** 2).mean(dtype=np.float64))
    return -10 * float(np.log10(max(error, 1e-30)))


def as_scan(stack: Float[ndarray, "n h w"]) -> Volume:
    """Slices as a scan whose slices they are."""
    return Volume(np.moveaxis(stack, 0, 2), np.diag([1.0, 1.0, 4.0, 1.0]))


def through(
    stack: Float[ndarray, "n h w"], way: Way, scale: int, engine: Engine, scanner: Scanner | None = None
) -> tuple[Float[ndarray, "n sh sw"], Steps]:
    """What the library makes of slices, and how it went about it."""
    steps = Steps(as_scan(stack), way.options(scale, scanner), engine)
    return sharpen(stack, steps.method).image, steps


def stated(s: Float[ndarray, "n g k"], case: Case) -> Scanner:
    """What is true of a case, as a user may state it; no window is known of a bicubic one."""
    part = case.sigma / max(float(np.percentile(s, 99.9)), 1e-9)
    return Scanner(
        acquired=(1 / SCALE, 1 / SCALE) if case.filled else (1.0, 1.0),
        window="auto" if case.bicubic else str(case.window),
        noise=f"{part:.6f}",
        background="0" if case.masked else "off",
    )


def found(known: Measured, gain: float) -> dict[str, Any]:
    """What the library measured, for the record."""
    return {
        "fraction": [round(f, 3) for f in known.fraction],
        "window": str(known.window),
        "noise": round(known.sigma / gain, 4) if gain else 0.0,
        "by": known.by,
        "background": known.background,
    }


def cell(
    x: Float[ndarray, "n h w"], case: Case, names: Sequence[str], engine: Engine, oracle: bool
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """PSNR of methods on one acquisition of a volume, and what the library measured, if it did."""
    x, s = acquired(x, case)
    scores, known = {}, None
    for name in names:
        way = WAYS[name]
        if case.scale == 1 and not way.native:
            if name in (BASE, "bicubic"):  # neither changes anything
                scores[name] = psnr(x, s)
            continue
        made, steps = through(s, way, case.scale, engine, stated(s, case) if oracle else None)
        scores[name] = psnr(x, aligned(made, steps.method.anchor, case.anchor, case.scale))
        if way.native:
            known = found(steps.known, steps.gain)
    return scores, known


def runs(name: str, case: Case) -> bool:
    """Whether there is such a method at this scale."""
    return case.scale > 1 or WAYS[name].native or name in (BASE, "bicubic")


def gains(rows: Rows, contrast: str, column: str, name: str) -> tuple[list[float], list[str], list[str]]:
    """Over zero-filling, of the volumes of a contrast that are done; their subjects and names."""
    cells = [
        (row["psnr"][column][name] - row["psnr"][column][BASE], row["subject"], volume)
        for volume, row in rows.items()
        if row["contrast"] == contrast and {name, BASE} <= row["psnr"].get(column, {}).keys()
    ]
    values, subjects, names = (list(side) for side in zip(*cells, strict=True)) if cells else ([], [], [])
    return values, subjects, names


def contrasts(rows: Rows) -> list[str]:
    """Those of the volumes."""
    return sorted({row["contrast"] for row in rows.values()})


def in_words(values: list[float], subjects: list[str]) -> str:
    """Mean, interval, and the worst volume."""
    if not values:
        return "–"
    text = f"{np.mean(values):+.2f}"
    if len(set(subjects)) >= FEWEST:
        low, high = interval(values, subjects)
        text += f" [{low:+.2f}, {high:+.2f}]"
    return f"{text}; {min(values):+.2f}"


def table(rows: Rows) -> list[str]:
    """A table for each contrast, what was measured, and the bars."""
    lines: list[str] = []
    for contrast in contrasts(rows):
        count = sum(row["contrast"] == contrast for row in rows.values())
        lines += [f"## {contrast} ({count} volumes)", ""]
        body = [
            [way.title, *(in_words(*gains(rows, contrast, column, name)[:2]) for column in CASES)]
            for name, way in WAYS.items()
        ]
        lines += [*markdown(["method", *(case.title for case in CASES.values())], body), ""]
    return [*lines, *_measurements(rows), "", *bars(rows)]


def _measurements(rows: Rows) -> list[str]:
    """What the library found out about the acquisitions, volume by volume."""
    body = [
        [
            volume,
            row["contrast"],
            *(
                f"{'×'.join(f'{f:.2f}' for f in m['fraction'])} {m['window']} {m['noise']:.1%} ({m['by']})"
                if (m := row["measured"].get(column))
                else "–"
                for column in CASES
            ),
        ]
        for volume, row in rows.items()
    ]
    head = ["volume", "contrast", *(case.title for case in CASES.values())]
    return ["## Acquired part, filter and noise as the library had them", "", *markdown(head, body)]


def bars(rows: Rows) -> list[str]:
    """What is to be reached, and whether it is."""
    lines = ["## Bars", ""]
    body = []
    for column, bar in BARS.items():
        for contrast, least in bar.items():
            values = gains(rows, contrast, column, "native")[0]
            mean = float(np.mean(values)) if values else None
            verdict = "no such volume" if mean is None else "reached" if mean >= least else "MISSED"
            body.append([CASES[column].title, contrast, f"{least:+.2f}", _number(mean), verdict])
    lines += markdown(["acquisition", "contrast", "bar", "native", ""], body)
    below = [
        f"{WAYS[name].title}, {CASES[column].title}, {volume}: {value:+.2f} dB"
        for name in ("native", "native+")
        for column in CASES
        for contrast in contrasts(rows)
        for value, volume in zip(*gains(rows, contrast, column, name)[::2], strict=True)
        if value < -LOSS
    ]
    rule = f"Never more than {LOSS} dB below zero-filling on any volume: {'MISSED' if below else 'held'}"
    return [*lines, "", rule, *(["", *(f"- {one}" for one in below)] if below else [])]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def picture(rows: Rows, path: Path) -> None:
    """A heat map of mean gains, a panel for each contrast; a dot: some volume lost more than `LOSS`."""
    kinds = contrasts(rows)
    figure = Figure(figsize=(11, 0.8 + 2.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
    for ax, contrast in zip(axes, kinds, strict=True):
        grid = np.full((len(WAYS), len(CASES)), np.nan)
        for i, name in enumerate(WAYS):
            for j, column in enumerate(CASES):
                values = gains(rows, contrast, column, name)[0]
                if values:
                    grid[i, j] = np.mean(values)
                    mark = " •" if min(values) < -LOSS else ""
                    ax.text(
                        j,
                        i,
                        f"{grid[i, j]:+.1f}{mark}",
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="w" if abs(grid[i, j]) > 4 else "k",
                    )
        shown = ax.imshow(grid, cmap="RdBu", vmin=-6, vmax=6, aspect="auto")
        ax.set_yticks(range(len(WAYS)), [way.title for way in WAYS.values()], fontsize=8)
        count = sum(row["contrast"] == contrast for row in rows.values())
        ax.set_title(f"{contrast}, {count} volumes", fontsize=9)
    axes[-1].set_xticks(
        range(len(CASES)), [c.title for c in CASES.values()], fontsize=8, rotation=25, ha="right"
    )
    figure.colorbar(shown, ax=axes, label="gain over zero-filling, dB", shrink=0.6)
    save(figure, path)


def digests() -> str:
    """The weights files of the rows, with the beginning of their digests."""
    held = weights.at_hand()
    keys = (f"seran-{methods.NATIVE}", f"seran-x{SCALE}-bd", f"seran-x{SCALE}-td")
    return ", ".join(f"{k} {weights.read(held[k]).digest[:12]}" for k in keys if k in held)


def computed(
    rows: Rows,
    given: Sequence[Source],
    names: Sequence[str],
    columns: Sequence[str],
    work: Callable[[Source, str, Sequence[str]], tuple[dict[str, float], dict[str, Any] | None]],
) -> Iterator[str]:
    """Fill the rows, cell by cell; yields the name of each volume to which something was added.

    Args:
        rows: by volume; what is there is not computed again.
        given: the volumes.
        names: the methods.
        columns: the acquisitions.
        work: gives the scores of methods on an acquisition of a volume.
    """
    for source in given:
        facts = {"contrast": source.contrast, "subject": source.subject, "psnr": {}, "measured": {}}
        for column in columns:
            row = rows.get(source.path.name, facts)
            done = row["psnr"].get(column, {})
            missing = [n for n in (BASE, *names) if n not in done and runs(n, CASES[column])]
            if missing := list(dict.fromkeys(missing)):
                scores, known = work(source, column, missing)
                row["psnr"][column] = done | scores
                if known:
                    row["measured"][column] = known
                rows[source.path.name] = row
                yield source.path.name


def main(
    lists: Positional[tuple[Path, ...]],
    split: str = "test",
    slices: int = 8,
    ways: tuple[str, ...] = tuple(WAYS),
    columns: tuple[str, ...] = tuple(CASES),
    only: str = "",
    oracle: bool = False,
    stored: bool = False,
    threads: int = 0,
    out: Path = Path(__file__).parent,
    figures: Path = Path(__file__).parents[1] / "docs",
) -> None:
    """Fill the matrix; what is done already is kept.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        split: of the scans.
        slices: how many central slices of each; 0 for all.
        ways: rows, see `WAYS`.
        columns: see `CASES`.
        only: volumes whose file names contain this.
        oracle: tell the native network what is true of the acquisition, instead of measuring it.
        stored: take scans as they are, with the zeros that a scanner filled in.
        threads: of the CPU; 0: all.
        out: folder of ``native_matrix.json`` and ``.md``; those of other splits bear their names.
        figures: folder of the heat map.
    """
    for word, known in ((ways, WAYS), (columns, CASES)):
        if set(word) - set(known):
            raise BadInput(f"expected some of {', '.join(known)}, got {', '.join(word)}")
    given = [s for s in sources(lists, split) if only in s.path.name]
    words = "noise, window and acquired part are stated" if oracle else "the library measures what it uses"
    facts = {"split": split, "slices": slices or "all", "known": words, "fewest": FEWEST}
    facts["grid"] = "the scan as it is stored" if stored else "the k-space that was measured"
    protocol = [line.format(**facts, weights=digests()) for line in PROTOCOL]
    name = "-".join(
        ["native_matrix", *[split] * (split != "test"), *["oracle"] * oracle, *["stored"] * stored]
    )
    path, engine = out / f"{name}.json", Engine(threads=threads)
    rows = load(path, protocol)
    held: dict[Path, ndarray] = {}

    def work(source: Source, column: str, missing: Sequence[str]) -> tuple[dict, dict | None]:
        if source.path not in held:
            held.clear()
            held[source.path] = truth(source, slices, stored)
        scores, known = cell(held[source.path], CASES[column], missing, engine, oracle)
        said = ", ".join(f"{n} {v:.2f}" for n, v in scores.items())
        sys.stderr.write(f"{source.path.name}, {CASES[column].title}: {said}\n")
        return scores, known

    every = tuple(s.path.name for s in sources(lists, split))
    for _ in computed(rows, given, ways, columns, work):
        write(path, protocol, ordered(rows, every), table)
    rows = ordered(rows, every)
    write(path, protocol, rows, table)
    figures.mkdir(parents=True, exist_ok=True)
    picture(rows, figures / f"{name}.png")
    sys.stdout.write("\n".join(table(rows)) + "\n")


if __name__ == "__main__":
    program(main)
