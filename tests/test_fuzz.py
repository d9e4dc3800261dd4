"""Damaged files of every format: each ends in a sound result or in one line, and leaves nothing else."""

from pathlib import Path

import pytest

from tests import fuzz

CASES = 500
"""`python -m tests.fuzz` has more."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_damage_never_ends_in_a_traceback(seed: int) -> None:
    assert not fuzz.run(CASES, seed, show=True)


def test_a_case_is_always_the_same(tmp_path: Path) -> None:
    scans = fuzz.sound(tmp_path)
    kinds = {scan.name.split()[0].split(".")[0] for scan in scans}
    assert kinds >= {"nifti1", "nifti2", "mgh", "nrrd", "mha", "dicom"}
    for number in range(3 * len(scans)):
        one, again = (fuzz.case(scans, 0, number) for _ in range(2))
        assert one.files == again.files
        assert one.files != one.scan.files or one.kind == "header"
