"""What many volumes take: hours, machines, disk and money, from the measurements in results.md.

    python benchmarks/plan.py                       # 100,000 volumes, as in docs/hundred-thousand.md
    python benchmarks/plan.py --volumes 5000 --cores 16 --price 0.03
    python benchmarks/plan.py --seconds 14 --on 2   # your own machine: seconds of a volume on so many cores

A volume is that of `command.py`: 120x120x96 voxels at x2. Time goes with the number of voxels, so a volume of
twice as many counts as two.
"""

import re
from statistics import median

import tyro
from measure import RESULTS

VOXELS = 240 * 240 * 96
"""Of a result."""
COMMAND = re.compile(
    r"^## Command\n\n`[^`]*`, commit (?P<commit>\w+)[^,]*, (?P<machine>.*?), (?P<cores>\d+) cores[^\n]*\n"
    r".*?^\| `seran upscale`, 96 slices \| (?P<seconds>[\d.]+)",
    re.MULTILINE | re.DOTALL,
)
STORAGE = re.compile(r"^\| \S+ \| (float32|int16) \| [\dx]+ \| [\d.]+ \| ([\d.]+) \|$", re.MULTILINE)


def measured(text: str) -> dict[str, tuple[float, int]]:
    """Machine -> seconds of a volume and the cores that took them, of every section `command.py` wrote."""
    return {
        f"{m['machine']} ({m['commit']})": (float(m["seconds"]), int(m["cores"]))
        for m in COMMAND.finditer(text)
    }


def stored(text: str) -> dict[str, float]:
    """Type of voxel -> bytes that one takes in a .nii.gz, the median of the scans `storage.py` measured."""
    found: dict[str, list[float]] = {}
    for dtype, size in STORAGE.findall(text):
        found.setdefault(dtype, []).append(float(size))
    return {dtype: median(sizes) for dtype, sizes in found.items()}


def table(
    machines: dict[str, tuple[float, int]], sizes: dict[str, float], volumes: int, cores: int, price: float
) -> list[str]:
    """A row for each machine, and what the results take on disk.

    Args:
        machines: name -> seconds of a volume, and cores that took them.
        sizes: type of voxel -> bytes that one takes on disk.
        volumes: how many.
        cores: of all machines together.
        price: of an hour of one core.
    """
    head = f"| machine | seconds a volume | core-hours | hours on {cores} cores | at {price:g} a core-hour |"
    lines = [head, "|---" * 5 + "|"]
    for name, (seconds, used) in machines.items():
        spent = volumes * seconds * used / 3600
        row = (
            f"{seconds:g} on {used} cores",
            f"{spent:,.0f}",
            f"{spent / cores:,.1f}",
            f"{spent * price:,.2f}",
        )
        lines.append(f"| {name} | {' | '.join(row)} |")
    lines += ["", f"| results as | MB a volume | TB for {volumes:,} |", "|---|---|---|"]
    for dtype, size in sizes.items():
        lines.append(
            f"| .nii.gz, {dtype} | {size * VOXELS / 1e6:.1f} | {size * VOXELS * volumes / 1e12:.2f} |"
        )
    return lines


def main(
    volumes: int = 100_000, cores: int = 64, price: float = 0.05, seconds: float = 0, on: int = 2
) -> None:
    """Print the tables.

    Args:
        volumes: of 120x120x96 voxels at x2.
        cores: of all machines together.
        price: of an hour of one core, in your money; the default is an assumption, not an offer.
        seconds: of a volume on your machine (`python benchmarks/command.py`), instead of results.md's.
        on: cores that took them.
    """
    text = RESULTS.read_text()
    machines = {"yours": (seconds, on)} if seconds else measured(text)
    print("\n".join(table(machines, stored(text), volumes, cores, price)))  # noqa: T201


if __name__ == "__main__":
    tyro.cli(main)
