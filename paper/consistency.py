"""What keeping to the scan does to a result, see `seran.consistency`: on real scans, and beside a truth.

    python paper/consistency.py MANIFEST.csv NATIVE.csv

Three tables: real scans at x2, with the power of what is left of each as a multiple of its noise's; simulated
acquisitions at x2 (`acquisitions`) and thick slices (`isotropic`), with what the projection changes in PSNR.
Everything is measured by the library, as for a user.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from acquisitions import CASES, SCALE, acquired, aligned, central, psnr, sources
from acquisitions import truth as plane_truth
from isotropic import PART, thick
from isotropic import Case as Thick
from isotropic import truth as thick_truth
from results import Rows, load, markdown, program, write
from scans import NAMES, say, stack_of
from tyro.conf import Positional
from ways import as_scan, digests

import seran
from seran.data.sources import Source
from seran.engines import Engine
from seran.errors import BadInput
from seran.volume import Volume

PROTOCOL = (
    "Split {split}; the {slices} central slices of real scans, x2; {few} of simulated acquisitions, half of "
    "k-space; {third} in the third direction of scans whose slices are made thick",
    "Left: the power of what is left of the scan in the result, as a multiple of its noise's: in all slices, "
    "and in those eight in a row that have most",
    "Weights: {weights}",
)
COLUMNS = ("truncation", "noise-1", "noise-3", "hamming-1", "filled-tukey-2", "masked-1")
FACTORS = (2, 4, 7)
FEW, THIRD = 4, 48


def both(scan: Volume, engine: Engine, **how: Any) -> list[seran.Scan]:  # noqa: ANN401
    """A result without and with the projection."""
    return [
        seran.upscale((scan.data, scan.affine), consistent=kept, label_check=False, engine=engine, **how)
        for kept in (False, True)
    ]


def told(made: seran.Scan) -> dict[str, Any]:
    """What the record says."""
    record = made.record
    assert record is not None
    found = {check.name: check for check in record.checks}["consistency"]
    facts = {"noise": record.noise, "by": record.noise_by, "changed": record.projected}
    return facts | {"left": found.value, "verdict": found.verdict, "text": found.text}


def real(source: Source, slices: int, engine: Engine) -> dict[str, Any]:
    """What is left of a scan, with and without."""
    stack, _ = stack_of(source.path)
    chosen = central(stack, slices)
    without, kept = both(as_scan(chosen), engine, scale=SCALE)
    return {"slices": len(chosen), "off": told(without), "on": told(kept)}


def simulated(source: Source, engine: Engine) -> dict[str, Any]:
    """Decibels that the projection changes, of each acquisition."""
    found = {}
    for column in COLUMNS:
        case = CASES[column]
        x, s = acquired(plane_truth(source, FEW), case)
        made = both(as_scan(s), engine, scale=case.scale)
        high = [np.moveaxis(one.data, 2, 0) for one in made]
        high = [aligned(one, "center", case.anchor, case.scale) for one in high]
        without, kept = (psnr(x, one) for one in high)
        found[column] = {"db": kept - without, **told(made[1])}
    return found


def across(source: Source, engine: Engine) -> dict[str, Any]:
    """The same of thick slices, where the third direction is as fine as the second."""
    x, fine = thick_truth(source, THIRD)
    found = {}
    for k in FACTORS if fine else ():
        part = x[: len(x) // k * k]
        scan = Volume(thick(part, Thick(k)), np.diag([float(k), 1.0, 1.0, 1.0]))
        scanner = seran.Scanner(slice_thickness=PART * k)
        made = both(scan, engine, isotropic=True, scanner=scanner)
        without, kept = (psnr(part, one.data) for one in made)
        found[str(k)] = {"db": kept - without, **told(made[1])}
    return found


def table(rows: Rows) -> list[str]:
    """The three."""
    body = []
    for name, row in rows.items():
        off, on = row["real"]["off"], row["real"]["on"]
        left = ["–" if one["left"] is None else f"{one['left']:.2f}" for one in (off, on)]
        noise = "–" if on["noise"] is None else f"{on['noise']:.2%}, {on['by']}"
        changed = f"{on['changed']} of {row['real']['slices']}"
        body.append([name, row["contrast"], noise, *left, changed, on["verdict"]])
    head = ["scan", "contrast", "noise", "left, as the network made it", "left", "slices changed", "verdict"]
    lines = ["## Real scans", "", *markdown(head, body), ""]
    for part, title, columns in (
        ("simulated", "Simulated acquisitions", COLUMNS),
        ("across", "Thick slices", tuple(map(str, FACTORS))),
    ):
        body = []
        for column in columns:
            cells = [row[part][column] for row in rows.values() if column in row[part]]
            if cells:
                db = [cell["db"] for cell in cells]
                changed = sum(cell["changed"] > 0 for cell in cells)
                title_ = CASES[column].title if part == "simulated" else f"{column} times as far apart"
                spread = f"{np.mean(db):+.3f} ({min(db):+.3f} to {max(db):+.3f})"
                body.append([title_, f"{changed} of {len(cells)}", spread])
        head = ["", "scans changed", "change of PSNR, dB (least to most)"]
        lines += [f"## {title}", "", *markdown(head, body), ""]
    return lines


def main(
    lists: Positional[tuple[Path, ...]],
    split: str = "test",
    slices: int = 16,
    threads: int = 0,
    only: str = "",
    out: Path = Path(__file__).parent,
) -> None:
    """Fill the tables; scans that are done already are kept.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        split: of the scans.
        slices: how many central slices of a real scan; 0 for all.
        threads: of the CPU; 0: all.
        only: scans whose file names contain this.
        out: folder of ``consistency.json`` and ``.md``; those of other splits bear their names.
    """
    engine, facts = Engine(threads=threads), {"split": split, "slices": slices, "few": FEW, "third": THIRD}
    protocol = [line.format(**facts, weights=digests(NAMES)) for line in PROTOCOL]
    path = out / f"consistency{'' if split == 'test' else '-' + split}.json"
    rows = load(path, protocol)
    parts: dict[str, Callable[[Source], dict[str, Any]]] = {
        "real": lambda source: real(source, slices, engine),
        "simulated": lambda source: simulated(source, engine),
        "across": lambda source: across(source, engine),
    }
    for source in sources(lists, split):
        name = source.path.name
        if only not in name or name in rows:
            continue
        row: dict[str, Any] = {"contrast": source.contrast, "subject": source.subject}
        try:
            rows[name] = row | {part: work(source) for part, work in parts.items()}
        except BadInput as error:
            say(f"{name}: {error}")
            continue
        write(path, protocol, rows, table)
        say(f"{name}: {rows[name]['real']['on']['text']}")


if __name__ == "__main__":
    program(main)
