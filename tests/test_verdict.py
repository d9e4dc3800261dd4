"""One result has one verdict: that of its voxels as written, wherever it is asked for."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, io
from seran.job import record
from seran.quality import checks
from tests.conftest import oblique, phantom
from tests.test_dicom import series
from tests.test_dicom_out import DATA, STUDY


def compared(before: Path, after: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `seran compare` finds."""
    capsys.readouterr()
    cli.run(["compare", str(before), str(after), str(after.parent / "page.html"), "--json", "--force"])
    told = capsys.readouterr()
    return dict(json.loads(told.out))


@pytest.mark.parametrize(("name", "words"), [("out", ()), ("out.nii", ("--dtype", "int16"))])
def test_checks_are_of_what_is_read_again(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    """What a format rounds is judged, not what it was rounded from."""
    series(tmp_path / "in", DATA, oblique(), **STUDY)
    out = tmp_path / name
    assert cli.run(["upscale", str(tmp_path / "in"), str(out), "--method", "bicubic", *words]) == 0
    made = record.read(out)
    assert made is not None
    again = checks.all_of(io.read(tmp_path / "in"), io.read(out), made.provenance)
    assert [c.name for c in made.checks] == [c.name for c in again]
    for stated, found in zip(made.checks, again, strict=True):
        assert stated.verdict == found.verdict
        if found.value is not None:  # places lie where texts of numbers put them, to a millionth of a mm
            assert stated.value == pytest.approx(found.value, rel=1e-5, abs=1e-5), stated


def test_a_page_says_what_the_record_says(
    tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a series, too, of which it shows the first volume only; of a file that was changed it says so."""
    sharp = phantom((26, 34, 5))
    data = np.stack([gaussian_filter(sharp, (2, 2, 0)), sharp], 3)
    scan, out = tmp_path / "scan.nii", tmp_path / "out.nii"
    nib.save(nib.Nifti1Image(data, oblique()), scan)
    words = ["upscale", str(scan), str(out), "--method", "bicubic"]
    status = cli.run(words)
    stated = json.loads(record.sidecar(out).read_text())
    made = record.read(out)
    assert made is not None
    before, after = (next(io.read_series(path).volumes) for path in (scan, out))
    first = checks.all_of(before, after, made.provenance)
    assert checks.worst(first).verdict != stated["Verdict"]  # which is that of the second
    page = compared(scan, out, capsys)
    assert (page["Verdict"], page["Checks"]) == (stated["Verdict"], stated["Checks"])
    assert page["Notes"] == [
        "A series: its first volume is shown; the checks are those of the volume where each is worst."
    ]
    assert cli.run([*words, "--resume"]) == status == (1 if stated["Verdict"] == "FAIL" else 0)

    image = nib.load(out)
    voxels = np.asarray(image.dataobj).copy()
    voxels[20:30, 20:30] += 500
    nib.save(nib.Nifti1Image(voxels, image.affine, image.header), out)
    page = compared(scan, out, capsys)
    assert page["Notes"][0] == "out.nii is not as its record has it (SHA-256): the checks were made anew."
    assert page["Verdict"] == "FAIL"
    assert page["Checks"] != stated["Checks"]
