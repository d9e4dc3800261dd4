"""``seran calibrate``."""

from pathlib import Path

from seran import calibrate as library
from seran import progress
from seran.data.pairs import load_prepared


def calibrate(weights: Path, data: Path, /) -> str:
    """Make weights ready for `--precision int8`: measure on validation scans what 8 bits need and cost.

    As many convolutions compute in 8 bits as cost at most 0.03 dB on every volume. Bounds and cost are
    written behind the sealed part of the file, whose digest stays. Where even few cost more, nothing changes.

    Args:
        weights: the file (.onnx), which is replaced.
        data: a folder made by `seran prepare`; its split val is used.
    """
    with progress.bar(None, "choice") as bar:
        found = library.calibrate(weights, load_prepared(data), bar.update)
    cost = f"at most {found.int8_loss:.3f} dB on a volume"
    return f"{weights}: 8 bits in {len(found.ranges)} convolutions cost {cost}"
