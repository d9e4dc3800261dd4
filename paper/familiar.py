"""What is usual of the numbers of `seran.quality.familiar`: their least and greatest on scans.

    python paper/familiar.py MANIFEST.csv NATIVE.csv

Prints a line for each, as `seran.quality.familiar.USUAL` has it; and with --scans each scan that leaves it.
"""

import sys
from pathlib import Path

import numpy as np
from acquisitions import sources
from results import program
from scans import say
from tyro.conf import Positional

from seran import grid, kspace, measure
from seran.data.sources import read_source
from seran.quality.familiar import numbers, unusual


def main(
    lists: Positional[tuple[Path, ...]], splits: tuple[str, ...] = ("train", "val"), scans: bool = False
) -> None:
    """Measure all scans of the splits.

    Args:
        lists: CSV files of scans, as ``shared/data`` has them.
        splits: of the scans.
        scans: say what is unusual of each.
    """
    ends: dict[str, tuple[float, float]] = {}
    for source in (one for split in splits for one in sources(lists, split)):
        volume = read_source(source)
        axis = grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
        stack = np.moveaxis(volume.data, axis, 0)
        found = numbers(volume, axis, measure.measured(kspace.strong(stack)).fraction)
        for name, value in found.items():
            least, most = ends.get(name, (value, value))
            ends[name] = min(least, value), max(most, value)
        if scans and (strange := unusual(found, [])):
            say(f"{source.path.name}: {'; '.join(strange)}")
    for name, (least, most) in ends.items():
        sys.stdout.write(f'    "{name}": ({least:.4g}, {most:.4g}),\n')


if __name__ == "__main__":
    program(main)
