"""Inputs that are wrong on purpose: what `seran upscale` says of them, and of scans with nothing wrong.

    python paper/wrong.py MANIFEST.csv NATIVE.csv

Each is made of a scan of the validation split, or of what other packages have with them (a CT, a photograph);
one is of another animal, as it is. "Harmful" is what would mislead whoever looks at the result; the others
are unusual, and may pass. The scans of the test split, whole as a user gives them, show how often there is a
false alarm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pydicom
from acquisitions import central, sources
from jaxtyping import Float
from numpy import ndarray
from pydicom.data import get_testdata_file
from results import Rows, load, markdown, program, write
from scans import NAMES, say
from scipy import ndimage
from tyro.conf import Positional
from ways import digests

import seran
from seran import kspace, resize
from seran.data.sources import Source, read_source
from seran.engines import Engine
from seran.errors import BadInput

Stack = Float[ndarray, "n h w"]
PROTOCOL = (
    "Wrong inputs: made of the {slices} central slices of {bases} of the validation split; scans of the test "
    "split: whole, as they are stored; x2, everything measured by the library",
    "Weights: {weights}",
)
BASES = ("openms_patient04_study1_T1W", "ds000011_sub-10_inplaneT2")
SLICES = 12
OTHERS = {"nirodents_sub-15_T2w.nii.gz": "another animal"}
"""Scans of the test split that are no clean ones: what is wrong with them."""


@dataclass(frozen=True)
class Wrong:
    """An input that is wrong.

    Attributes:
        title: in words.
        make: of slices.
        how: what is stated besides, as arguments of `seran.upscale`.
        spacing: times which the voxels are stated larger.
        harmful: whether the result would mislead.
    """

    title: str
    make: Callable[[Stack], Stack]
    how: dict[str, Any] = field(default_factory=dict)
    spacing: float = 1.0
    harmful: bool = True


def moved(x: Stack, parts: int, most: float) -> Stack:
    """Slices of a head that moves between the parts of the acquisition, by so many pixels at most."""
    rng, whole = np.random.default_rng(0), kspace.spectrum(x)
    found, rows = whole.copy(), np.arange(x.shape[1]) * parts // x.shape[1]
    k = [np.fft.fftshift(np.fft.fftfreq(n)) for n in x.shape[1:]]
    for part in range(parts):
        by = rng.uniform(-most, most, 2)
        ramp = np.exp(-2j * np.pi * (by[0] * k[0][:, None] + by[1] * k[1]))
        found[:, rows == part] = (whole * ramp)[:, rows == part]
    return np.abs(kspace.image(found)).astype(np.float32)


def ghosts(x: Stack) -> Stack:
    """Every other line of k-space a little off: Nyquist ghosts, as of echo-planar imaging."""
    found = kspace.spectrum(x)
    found[:, ::2] *= np.exp(0.5j)
    return np.abs(kspace.image(found)).astype(np.float32)


def spike(x: Stack) -> Stack:
    """One sample of k-space far too large: stripes."""
    found = kspace.spectrum(x)
    found[:, x.shape[1] // 2 + 23, x.shape[2] // 2 + 17] += np.abs(found).max() * 0.15
    return np.abs(kspace.image(found)).astype(np.float32)


def zoomed(x: Stack, times: float, order: int) -> Stack:
    """Slices that somebody has made finer already."""
    return np.maximum(ndimage.zoom(x, (1, times, times), order=order), 0)


def folded(x: Stack) -> Stack:
    """A field of view that is too small: what lies outside comes in at the other side."""
    out = x.shape[1] // 4
    part = x[:, out:-out].copy()
    part[:, -out:] += x[:, :out]
    part[:, :out] += x[:, -out:]
    return part


def jpeg(x: Stack) -> Stack:
    """Packed as pictures, of poor quality."""
    from io import BytesIO

    from PIL import Image

    top = float(np.percentile(x, 99.9))
    made = []
    for one in np.clip(x / top * 255, 0, 255).astype(np.uint8):
        file = BytesIO()
        Image.fromarray(one).save(file, "JPEG", quality=12)
        made.append(np.asarray(Image.open(file), np.float32))
    return np.stack(made)


def photograph(x: Stack) -> Stack:
    """A person, as other packages have with them."""
    from PIL import Image

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    grey = np.asarray(Image.open(path).convert("L"), np.float32)[:, :480]
    return np.repeat(grey[None], len(x), 0)


def ct(x: Stack) -> Stack:
    """Hounsfield units of a slice, as pydicom has one with it."""
    found = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    image = found.pixel_array * float(found.RescaleSlope) + float(found.RescaleIntercept)
    return np.repeat(image[None].astype(np.float32), len(x), 0)


def sharpened(x: Stack, amount: float) -> Stack:
    """By an unsharp mask."""
    return np.maximum(x + amount * (x - ndimage.gaussian_filter(x, (0, 1.2, 1.2))), 0)


def classes(x: Stack) -> Stack:
    """A coarse segmentation."""
    return np.digitize(ndimage.gaussian_filter(x, (0, 1, 1)), np.percentile(x, [60, 80, 92])).astype(
        np.float32
    )


def noise(x: Stack) -> Stack:
    """Nothing but it."""
    a, b = np.random.default_rng(0).standard_normal((2, *x.shape)).astype(np.float32) * 50
    return np.hypot(a, b)


def noisy(x: Stack, part: float) -> Stack:
    """With so much noise."""
    a, b = np.random.default_rng(0).standard_normal((2, *x.shape)) * part * np.percentile(x, 99.9)
    return np.hypot(x + a, b).astype(np.float32)


def equalised(x: Stack) -> Stack:
    """Every intensity as often as every other."""
    order = np.argsort(np.argsort(x, None)).reshape(x.shape)
    return (order / x.size * 1000).astype(np.float32)


def striped(x: Stack) -> Stack:
    """Every other slice is a third brighter."""
    return x * np.where(np.arange(len(x)) % 2, 1.33, 1)[:, None, None].astype(np.float32)


def dropped(x: Stack) -> Stack:
    """Two slices are lost, and replaced by noise."""
    x = x.copy()
    x[4:6] = noise(x[4:6])
    return x


def diffused(x: Stack) -> Stack:
    """A diffusion-weighted image of b = 1000: little signal, much noise, distorted contrast."""
    return noisy(np.sqrt(x / x.max()).astype(np.float32) * 60 * (x > 0.1 * x.max()), 0.12)


def metal(x: Stack) -> Stack:
    """A hole with a bright rim."""
    h, w = x.shape[1:]
    r = np.hypot(*np.meshgrid(np.arange(h) - h * 0.42, np.arange(w) - w * 0.5, indexing="ij"))
    return (np.where(r < h * 0.1, 0, x) + np.where(np.abs(r - h * 0.11) < 2, 3 * x.max(), 0)).astype(
        np.float32
    )


def biased(x: Stack) -> Stack:
    """Twenty times brighter at one side than at the other, as near a surface coil."""
    return x * np.geomspace(1, 20, x.shape[2]).astype(np.float32)


def slabs(x: Stack) -> Stack:
    """In the wrong order."""
    return x[np.random.default_rng(1).permutation(len(x))]


def binned(x: Stack) -> Stack:
    """Twelve grey levels."""
    return np.floor(x / np.percentile(x, 99.9) * 12).clip(0, 12)


def cut(x: Stack) -> Stack:
    """At the median of the tissue, as if saturated."""
    return np.minimum(x, np.median(x[x > x.max() * 0.1]))


def reduced(x: Stack) -> Stack:
    """By antialiased bicubic interpolation."""
    return resize.imresize(x, (x.shape[1] // 2, x.shape[2] // 2))


def inner(x: Stack) -> Stack:
    """The middle, cropped through tissue."""
    h, w = (n // 4 for n in x.shape[1:])
    return x[:, h:-h, w:-w]


def same(x: Stack) -> Stack:
    """As it is."""
    return x


def scanner(**said: Any) -> dict[str, Any]:  # noqa: ANN401
    """What is stated of the acquisition."""
    return {"scanner": seran.Scanner(**said)}


def squares(x: Stack) -> Stack:
    """A chess board."""
    at = np.indices(x.shape[1:]).sum(0) // 8 % 2
    return np.repeat((at * 800.0 + 100)[None].astype(np.float32), len(x), 0)


WRONG = {
    "ct": Wrong("computed tomography", ct),
    "photograph": Wrong("a photograph", photograph),
    "chess": Wrong("a chess board", squares),
    "noise": Wrong("noise alone", noise),
    "labels": Wrong("a segmentation", classes),
    "labels-taken": Wrong("a segmentation, taken as it is", classes, {"label_check": False}),
    "motion": Wrong("motion of 3 pixels, 8 shots", lambda x: moved(x, 8, 3)),
    "motion-slight": Wrong("motion of 1 pixel, 4 shots", lambda x: moved(x, 4, 1)),
    "ghosts": Wrong("Nyquist ghosts", ghosts),
    "spike": Wrong("a spike in k-space", spike),
    "folded": Wrong("folded over", folded),
    "metal": Wrong("a signal void with a bright rim", metal),
    "bicubic-2": Wrong("made twice as fine by cubic splines", lambda x: zoomed(x, 2, 3)),
    "linear-2": Wrong("made twice as fine, linearly", lambda x: zoomed(x, 2, 1)),
    "linear-1.5": Wrong("made 1.5 times as fine, linearly", lambda x: zoomed(x, 1.5, 1)),
    "nearest-2": Wrong("every pixel doubled", lambda x: zoomed(x, 2, 0)),
    "unsharp": Wrong("sharpened by an unsharp mask", lambda x: sharpened(x, 1.5)),
    "unsharp-strong": Wrong("sharpened strongly", lambda x: sharpened(x, 4)),
    "blurred": Wrong("blurred", lambda x: ndimage.gaussian_filter(x, (0, 1.5, 1.5))),
    "median": Wrong("a median filter", lambda x: ndimage.median_filter(x, (1, 5, 5))),
    "jpeg": Wrong("packed as JPEG of poor quality", jpeg),
    "binned": Wrong("twelve grey levels", binned),
    "equalised": Wrong("histogram equalised", equalised),
    "inverted": Wrong("inverted", lambda x: x.max() - x),
    "log": Wrong("logarithm of the intensities", np.log1p),
    "squared": Wrong("intensities squared", lambda x: x**2 / x.max()),
    "saturated": Wrong("cut off at the median of the tissue", cut),
    "diffusion": Wrong("diffusion of b = 1000, made", diffused),
    "noisy-10": Wrong("noise of 10 %", lambda x: noisy(x, 0.1)),
    "noisy-25": Wrong("noise of 25 %", lambda x: noisy(x, 0.25)),
    "dropped": Wrong("two slices of noise", dropped),
    "striped": Wrong("every other slice brighter by a third", striped),
    "order": Wrong("slices in the wrong order", slabs),
    "biased": Wrong("20 times brighter at one side", biased, harmful=False),
    "seran": Wrong("a result of seran's, its record lost", same, {"twice": True}),
    "window": Wrong("a filter stated that was not used", same, scanner(window="hamming:0.46")),
    "zeros": Wrong("zeros stated that were not filled in", same, scanner(acquired=(0.5, 0.5))),
    "noise-much": Wrong("noise of 10 % stated", same, scanner(noise=0.1)),
    "noise-off": Wrong("a noisy scan, stated to have none", lambda x: noisy(x, 0.05), scanner(noise="off")),
    "cm": Wrong("millimetres taken for centimetres", same, spacing=10),
    "tenth": Wrong("voxels stated ten times too small", same, spacing=0.1),
    "bd": Wrong("weights for bicubic images", lambda x: noisy(x, 0.03), scanner(acquisition="bicubic")),
    "thick": Wrong("slices across thick ones, forced", same, {"plane": "sagittal", "force_plane": True}),
    "reduced": Wrong("reduced by antialiased bicubic", reduced, harmful=False),
    "offset": Wrong("an offset of 2,000", lambda x: x + 2000, harmful=False),
    "cropped": Wrong("cropped through tissue", inner, harmful=False),
}  # fmt: skip


def said(scan: Any, engine: Engine, how: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """The verdict, and which checks say it; a refusal is a FAIL."""
    options = dict(how)
    try:
        if options.pop("twice", False):
            once = seran.upscale(scan, scale=2, engine=engine)
            scan = (once.data, once.affine)
        made = seran.upscale(scan, scale=2, engine=engine, **options)
    except BadInput as error:
        return {"verdict": "refused", "checks": {}, "text": str(error)}
    assert made.record is not None
    found = {c.name: [c.verdict, c.value] for c in made.record.checks}
    bad = [f"{c.verdict} {c.name}: {c.text}" for c in made.record.checks if c.verdict in ("WARN", "FAIL")]
    return {"verdict": made.record.verdict, "checks": found, "text": " | ".join(bad)}


def alarmed(row: dict[str, Any]) -> bool:
    """Whether whoever reads the line that is printed would know."""
    return row["verdict"] in ("WARN", "FAIL", "refused")


def table(rows: Rows) -> list[str]:
    """What was said of each, and how often that was right."""
    wrong = {n: r for n, r in rows.items() if "wrong" in r}
    clean = {n: r for n, r in rows.items() if "wrong" not in r}
    harmful = [r for r in wrong.values() if r["harmful"]]
    told, false = sum(map(alarmed, harmful)), sum(map(alarmed, clean.values()))
    lines = [
        f"WARN, FAIL or refused: {told} of {len(harmful)} harmful inputs "
        f"({told / max(1, len(harmful)):.0%}), {false} of {len(clean)} test scans",
        "",
    ]
    body = []
    for name, row in rows.items():
        by = ", ".join(check for check, (verdict, _) in row["checks"].items() if verdict in ("WARN", "FAIL"))
        what = row.get("wrong", "as it is")
        body.append([name, what, "yes" if row.get("harmful") else "no", row["verdict"], by])
    return [*lines, *markdown(["input", "what is wrong", "harmful", "verdict", "by"], body)]


def main(
    lists: Positional[tuple[Path, ...]],
    threads: int = 0,
    only: str = "",
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the table; what is done already is kept.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        threads: of the CPU; 0: all.
        only: inputs whose name contains this.
        out: folder of ``wrong.json`` and ``.md``.
    """
    engine = Engine(threads=threads)
    facts = {"slices": SLICES, "bases": " and ".join(BASES), "weights": digests(NAMES)}
    protocol = [line.format(**facts) for line in PROTOCOL]
    rows = load(out / "wrong.json", protocol)

    def keep(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        write(out / "wrong.json", protocol, rows, table)
        say(f"{name}: {row['verdict']} {row['text'][:150]}")

    def made(source: Source, one: Wrong) -> tuple[Float[ndarray, "h w n"], Float[ndarray, "4 4"]]:
        volume = read_source(source)
        axis = seran.grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
        size = seran.grid.spacing(volume.affine)
        data = one.make(central(np.moveaxis(volume.data, axis, 0), SLICES).astype(np.float32))
        affine = np.diag([*np.delete(size, axis) * one.spacing, size[axis] * one.spacing, 1.0])
        return np.moveaxis(np.ascontiguousarray(data, np.float32), 0, 2), affine

    for source in sources(lists, "val"):
        base = source.path.name.split(".")[0]
        for key, one in WRONG.items() if base in BASES else ():
            name = f"{key}, {source.contrast}"
            if only in name and name not in rows:
                told = said(made(source, one), engine, one.how)
                keep(name, {"wrong": one.title, "harmful": one.harmful, **told})
    for source in sources(lists, "test"):
        name = source.path.name
        if only in name and name not in rows:
            what = {"wrong": OTHERS[name], "harmful": True} if name in OTHERS else {}
            keep(name, {"contrast": source.contrast, **what, **said(source.path, engine, {})})


if __name__ == "__main__":
    program(main)
