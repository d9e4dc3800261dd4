"""The table of many scans: what its columns hold, and what a data dictionary (BIDS) says of them."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seran import facts
from seran.progress import plain

CHECKS: dict[str, tuple[str, str]] = {
    "geometry": ("How far a corner of the field of view is from where it belongs", "mm"),
    "intensities": ("How far the 0.1st or 99.9th percentile moved, as a part of what lies between them", ""),
    "residual": ("RMS of the result, degraded as its method declares, less the scan and beyond its noise, "
                 "as a part of the scan's range", ""),
    "consistency": ("Power of that residual, as a multiple of that of the scan's noise", ""),
    "noise": ("Standard deviation in flat tissue or air, which grew more, as a multiple of the scan's", ""),
    "overshoot": ("Share of pixels that leave the 3x3 pixels of the scan around them by more than 2 % of its "
                  "range", ""),
    "signal": ("Standard deviation of the scan's noise as a part of its range", ""),
    "familiar": ("How many numbers of the scan are beyond those of training scans", ""),
    "added": ("Power just beyond what was measured, against that just within it", "dB"),
    "uncertainty": ("Mean half-width of the intervals in tissue, as a part of the scan's range", ""),
    "resolution": ("How many times finer the result is than what was acquired", ""),
}  # fmt: skip
"""What the number of each check is, and its unit."""
STATUS = {
    "done": "the result is there, and of the scan as it is",
    "failed": "the scan failed when it was last tried, or cannot be used; a result is of an earlier run",
    "missing": "there is no result: the scan was not tried, or its result is lost",
    "outdated": "the scan, or the result, was changed after the result was made",
    "orphan": "the result is there, and the scan that it was made from is gone",
}
VERDICT = {
    "PASS": "all checks pass", "not known": "a check has nothing to go by", "WARN": "a check warns",
    "FAIL": "a check fails",
}  # fmt: skip
AXES = "ijk"
SIZES = {"voxel_before": "of the scan", "voxel_after": "of the result"}
SUPPORT = {"kspace_rows": 0, "kspace_columns": 1}
BIDS = {
    "participant_id": {"Description": "Participant"},
    "session_id": {"Description": "Session"},
}
NAMED = {
    "res": {"Description": "Label of the grid in the name of the result (res-)"},
    "desc": {"Description": "Label of what was done in the name of the result (desc-)"},
}
COLUMNS: dict[str, dict[str, Any]] = {
    **BIDS,
    "source": {"Description": "Path of the scan in its data set or folder"},
    **NAMED,
    "status": {"Description": "What there is of the scan", "Levels": STATUS},
    "verdict": {"Description": "The worst verdict of all checks of the result", "Levels": VERDICT},
    "reason": {"Description": "Why the status is not done"},
    "record_verdict": {"Description": "What the record states, where that is not the worst of its own checks",
                       "Levels": VERDICT},
    "result": {"Description": "Path of the result from the folder of this table on"},
    "page": {"Description": "Path of the page about scan and result from the folder of this table on"},
    "method": {"Description": "What sharpened the scan"},
    "weights": {"Description": "Name of the weights file"},
    "weights_sha256": {"Description": "SHA-256 of the weights file"},
    "version": {"Description": "Version of seran that made the result"},
    **{f"{name}_{axis}": {"Description": f"Voxel size {of} along its array's axis {axis}", "Units": "mm"}
       for name, of in SIZES.items() for axis in AXES},
    **{name: {"Description": f"Part of k-space along {name[7:]} that was measured"} for name in SUPPORT},
    "seconds": {"Description": "Time that sharpening took, from start to file", "Units": "s"},
    **{f"check_{name}": {"Description": f"Check of {name}: {text[0].lower()}{text[1:]}",
                         **({"Units": unit} if unit else {})}
       for name, (text, unit) in CHECKS.items()},
    "checks": {"Description": "What checks that say WARN or FAIL found, the worst first"},
}  # fmt: skip
"""The columns, in order, as a data dictionary describes them."""


def of(scans: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of these scans; a folder that is no BIDS data set has no participants."""
    known = {name for scan in scans for name in scan}
    return [name for name in COLUMNS if name in known or name not in (*BIDS, *NAMED)]


def row(scan: Mapping[str, Any], said: Sequence[str]) -> dict[str, str]:
    """The cells of a scan: none is empty, breaks a line, or is a formula to a spreadsheet.

    Args:
        scan: as `seran.job.summary.of` tells it, with texts for paths.
        said: what its checks found.
    """
    values = {name: scan.get(name) for name in COLUMNS} | {"checks": " | ".join(said)}
    for name in SIZES:
        values |= {f"{name}_{axis}": one for axis, one in zip(AXES, scan.get(name, ()), strict=False)}
    support = scan.get("kspace_support", ())
    values |= {name: support[i] for name, i in SUPPORT.items() if i < len(support)}
    values |= {f"check_{check['name']}": check["value"] for check in scan["checks"]}
    return {name: cell(values[name]) for name in COLUMNS}


def cell(value: object) -> str:
    """One line of text, a number with six digits, or n/a."""
    if isinstance(value, int | float):
        return f"{value:.6g}" if math.isfinite(value) else "n/a"
    text = " ".join(plain(str(value or "n/a")).split()) or "n/a"
    return f"'{text}" if text[0] in "=+-@" else text


def write(path: Path, rows: Sequence[Mapping[str, str]], head: Sequence[str]) -> None:
    """The table, tab-separated."""
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, head, "n/a", "ignore", delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def dictionary(head: Sequence[str]) -> str:
    """JSON that describes these columns in BIDS's manner."""
    return facts.dumps({name: COLUMNS[name] for name in head}, indent=1) + "\n"
