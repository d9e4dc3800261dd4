"""The network across slices, fine-tuned on each scan's own slices, against the shipped one: PSNR and steps.

    python paper/adapt.py MANIFEST.csv                 # the test split
    python paper/adapt.py MANIFEST.csv --split val

Thick slices are made as in `isotropic`. Isotropic scans (T1) lose slices along their third array axis, and
the slices that are left teach: that is what ``--adapt`` does. Other contrasts come in thick slices; of these
the first half teaches, in the plane, and an axis in the plane of the second half takes the part of the third.
That is kinder than reality, where what teaches lies across what is wanted.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from acquisitions import sources
from isotropic import NOISE, PART, Case, thick, truth
from jaxtyping import Float
from numpy import ndarray
from results import Rows, load, markdown, program, write
from tyro.conf import Positional

from seran import adapt, isotropic, methods, native
from seran.data.sources import Source
from seran.engines import Engine, Running
from seran.profiles import Profile
from seran.quality import metrics
from seran.sharpen import Across, Normalisation

PROTOCOL = (
    "Split {split}; truths have a 99.9th percentile of 1; noise of {noise:.0%} of it on what is given; both "
    "images held at 0 from below; PSNR of {slices} central slices in the third direction",
    "Slices are {part:.0%} as thick as far apart, profile ``slr``; noise and profile are told as they are",
    "Seconds are those of one CPU thread (bf16 with AMX) that the process had, whatever else ran beside it",
    "Own pairs: gain on slices that nothing was learned from, which decides whether the shipped weights are "
    "kept (below {worth} dB)",
    "Weights: {digest}",
)
WHOLE = 1 << 20  # slices, more than any scan has
Predict = Callable[[Running], Float[ndarray, "n h w"]]


def task(
    source: Source, k: int, slices: int
) -> tuple[Float[ndarray, "n h w"], Float[ndarray, "n h w"], Predict, bool]:
    """What teaches, the truth, what a network makes of what is given, and whether the scan is isotropic.

    Args:
        source: the scan.
        k: voxels of the truth from slice to slice.
        slices: of the third direction.
    """
    x, fine = truth(source, WHOLE)
    x, profile, case = x[: len(x) // k * k], Profile("slr", PART), Case(k)
    n = x.shape[2]
    if fine:
        given, middle = thick(x, case), slice(max(0, n // 2 - slices // 2), n // 2 + slices // 2)
        part = np.ascontiguousarray(given[:, :, middle])

        def thinner(running: Running) -> Float[ndarray, "n h w"]:
            return isotropic.thinner(part, Across("", "", lambda _: running), k, profile, NOISE)

        return given, x[:, :, middle], thinner, fine
    a, b = NOISE * np.random.default_rng(1).standard_normal((2, *x[:, :, : n // 2].shape))
    teaching = np.hypot(x[:, :, : n // 2] + a, b).astype(np.float32)
    left = slice(n // 2, n // 2 + slices)
    planes = np.moveaxis(thick(x[:, :, left], case), 2, 0)
    low = native.joined(np.stack([planes] * 3, 1), isotropic.told(NOISE, profile, k))
    return (
        np.ascontiguousarray(np.moveaxis(teaching, 2, 0)),
        x[:, :, left],
        lambda running: np.moveaxis(running.predict(low), 0, 2),
        fine,
    )


def scored(source: Source, k: int, slices: int, seconds: Sequence[float]) -> dict[str, object]:
    """Gains after so many seconds.

    Args:
        source: the scan.
        k: the factor.
        slices: of the third direction, that are compared.
        seconds: of this process on one thread, ascending.
    """
    engine = Engine(threads=1)
    across, profile = methods.across(methods.DEFAULT, None, engine), Profile("slr", PART)
    assert across.held is not None
    stack, x, made, fine = task(source, k, slices)

    def psnr(running: Running) -> float:
        return metrics.psnr(x, np.maximum(made(running), 0), 1.0)

    base, held, norm = psnr(across.heads(k)), across.held(k), Normalisation.of(stack)
    row: dict[str, object] = {"contrast": source.contrast, "k": k, "isotropic": fine, "shipped": base}
    found = adapt.pairs_of(norm.apply(stack), k, profile, NOISE / norm.gain)
    row["after"] = after = {}
    if found is None:
        return row
    learned, judge = found
    row |= {"slices": len(learned.slices), "judging": len(judge.slices)}
    with adapt.threads(1):
        began = time.process_time()
        run = adapt.Run(adapt.network(held), isotropic.told(NOISE / norm.gain, profile, k), "cpu")
        before, spent = run.error(judge), 0.0
        judging = time.process_time() - began
        for limit in seconds:
            while spent + time.process_time() - began + judging < limit:
                run.learn(learned.batch(0, run.steps))
            spent += time.process_time() - began
            run.swap()
            own = 10 * math.log10(before / run.error(judge))
            gain = psnr(methods.loaded(adapt.replaced(held, run.state()), engine)) - base
            run.swap()
            after[f"{limit:g}"] = {"steps": run.steps, "own": own, "gain": gain}
            began = time.process_time()
    return row


def table(rows: Rows) -> list[str]:
    """Gains of each scan, and the steps they took; then the means of contrasts."""
    names = list(dict.fromkeys(n for row in rows.values() for n in row["after"]))
    columns = ["scan", "contrast", "factor", "shipped, dB"]
    columns += [f"{n} s: dB (own pairs; steps)" for n in names]
    lines = []
    for name, row in rows.items():
        cells = [
            f"{a['gain']:+.2f} ({a['own']:+.2f}; {a['steps']})" if (a := row["after"].get(n)) else ""
            for n in names
        ]
        kind = row["contrast"] + (", isotropic" if row["isotropic"] else "")
        lines.append([name.rpartition(" ")[0], kind, str(row["k"]), f"{row['shipped']:.2f}", *cells])
    means = []
    for key in sorted({(row["contrast"], row["isotropic"], row["k"]) for row in rows.values()}):
        same = [r for r in rows.values() if (r["contrast"], r["isotropic"], r["k"]) == key]
        gains = [[kept(r, n) for r in same if n in r["after"]] for n in names]
        cells = [f"{np.mean(g):+.2f}" + f" (of {len(g)})" * (len(g) < len(same)) if g else "" for g in gains]
        means.append([f"{key[0]}{', isotropic' * key[1]} ({len(same)})", str(key[2]), *cells])
    head = ["contrast (scans)", "factor", *(f"{n} s" for n in names)]
    told = ["Gain over the shipped network in dB, where own pairs say that it is none: 0.", ""]
    return [*told, *markdown(head, means), "", *markdown(columns, lines)]


def kept(row: dict, name: str) -> float:
    """The gain of what is used."""
    after = row["after"][name]
    return after["gain"] if after["own"] >= adapt.WORTH else 0.0


def main(
    lists: Positional[tuple[Path, ...]],
    split: str = "test",
    factors: tuple[int, ...] = (4,),
    seconds: tuple[float, ...] = (30, 60, 120),
    slices: int = 32,
    only: tuple[str, ...] = (),
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the table; what is done already is kept, if it is of the same weights.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        split: of the scans.
        factors: slices for each.
        seconds: after which the network is compared, ascending.
        slices: central ones in the third direction, that are compared.
        only: scans whose file names contain one of these.
        out: folder of ``adapt.json`` and ``.md``; those of other splits bear their names.
    """
    digest = methods.across(methods.DEFAULT).sha256[:12]
    facts = {"split": split, "slices": slices, "noise": NOISE, "part": PART, "digest": digest}
    protocol = [line.format(worth=adapt.WORTH, **facts) for line in PROTOCOL]
    path = out / f"adapt{'' if split == 'test' else '-' + split}.json"
    rows = load(path, protocol)
    for source in sources(lists, split):
        for k in factors:
            name = f"{source.path.name} {k}"
            if name in rows or (only and not any(part in source.path.name for part in only)):
                continue
            began = time.perf_counter()
            rows[name] = scored(source, k, slices, seconds)
            gains = {n: round(a["gain"], 3) for n, a in rows[name]["after"].items()}
            sys.stderr.write(f"{name}: {gains} dB, {time.perf_counter() - began:.0f} s\n")
            write(path, protocol, rows, table)


if __name__ == "__main__":
    program(main)
