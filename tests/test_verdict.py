"""One result has one verdict: that of its voxels as written, wherever it is asked for."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, io
from seran.acquisition import NONE
from seran.job import record
from seran.quality import checks
from seran.quality.familiar import ASKED, USUAL, WORDS
from seran.quality.measures import Measures
from seran.quality.provenance import Acquired, Off, Provenance
from seran.quality.words import SENTENCES, sentence
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_dicom import series
from tests.test_dicom_out import DATA, STUDY


def known(off: Off | None = None) -> Provenance:
    seen = Acquired((1.0, 1.0), NONE, 0.01, None, True, False)
    return Provenance((1, 1), 2, "td", False, True, seen, None, off)


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
    told = "out.nii, or a map beside it, is not as its record has it: the checks were made anew."
    assert page["Notes"][0] == told
    assert page["Verdict"] == "FAIL"
    assert page["Checks"] != stated["Checks"]


def test_a_limit_says_of_what_it_is() -> None:
    """Which numbers are compared with which limits, and where one is passed from above."""
    scan, made = Volume(phantom((26, 34, 12)), oblique()), known()
    left = checks.Residual(0.02, 0.01, 3.99, 4.06)
    verdict, text, _ = checks._consistency(made, left)
    assert verdict == "WARN"
    limits = "(WARN from 1.5 or, in 8 slices in a row, 3; FAIL from 4 or, in 8 slices in a row, 8)"
    assert text.endswith(f"at most 4.06 in 8 slices in a row {limits}")
    text = checks._consistency(made, checks.Residual(0.02, 0.01, 1.0, 1.0))[1]
    assert text.endswith("noise (WARN from 1.5; FAIL from 4)")
    high = Measures(1.0, 1.0, 0.0, 0.0, 0.0, None, 0.9)
    verdict, text, _ = checks._residual(scan, scan, made, checks.Residual(0.0, 0.0, 1.0, 1.0), high)
    assert verdict == "WARN"
    assert text.endswith("have 90.0% of their height (WARN below 92%, FAIL below 70%)")
    text = checks._uncertainty(Off(0.111, 0.105, 26.4, 11, "other"))[1]
    assert "off by less than 11.1% of the range: a smaller difference between two of them may not be" in text
    assert "at most 10.5% on the calibration's scans, WARN from 12.6%" in text


def test_what_a_familiar_scan_is_like_is_named() -> None:
    assert ASKED.keys() == WORDS.keys()
    quiet = {name: sum(ends) / 2 for name, ends in USUAL.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "numbers", lambda *_: quiet)
        verdict, text, _ = checks._familiar(Volume(phantom((80, 90, 5)), oblique()), known())
    assert verdict == "PASS"
    assert text.startswith("as in training scans: fall of the spectrum to its edge, ")
    assert "ghosts, folding" in text


def test_every_check_has_a_plain_sentence() -> None:
    before, made = Volume(phantom((26, 34, 5)), oblique()), known(off=Off(0.05, 0.1, 30.0, 11, "T1"))
    found = checks.all_of(before, before, made)
    assert {check.name for check in found} == SENTENCES.keys()
    wrong = checks.Check("consistency", "FAIL", "the residual …", 4.02)
    assert sentence(wrong) == "agrees with the scan to within its noise: no"
    classical = checks.Check("consistency", "PASS", "no weights: …")
    assert sentence(classical) == "agrees with the scan to within its noise: nothing to ask"


def test_a_page_has_the_sentence_before_the_numbers(tmp_path: Path, stub: Path) -> None:
    scan, out, web = (tmp_path / name for name in ("scan.nii", "out.nii", "page.html"))
    nib.save(nib.Nifti1Image(phantom((26, 34, 5)), oblique()), scan)
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic", "--report", str(web)]) == 0
    text = web.read_text()
    assert "<th>geometry</th><td>PASS</td><td>lies where the scan lies: yes\ncorners within" in text
    assert "<td>agrees with the scan to within its noise: nothing to ask\nno weights" in text


def test_a_volume_that_was_chosen_is_compared_with_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the record does not fit the scan, the first volume is, and the checks are made anew."""
    scan, out = tmp_path / "scan.nii", tmp_path / "out.nii"
    data = np.stack([phantom((26, 34, 5), seed) for seed in range(3)], 3)
    nib.save(nib.Nifti1Image(data, oblique()), scan)
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic", "--volume", "2"]) == 0
    stated = json.loads(record.sidecar(out).read_text())
    page = compared(scan, out, capsys)
    assert (page["Verdict"], page["Checks"]) == (stated["Verdict"], stated["Checks"])
    assert page["Notes"] == ["Of scan.nii volume 2, counted from 0, is shown and checked."]

    old = {key: value for key, value in stated.items() if key != "ReadAs"}  # as 0.1 wrote it
    record.sidecar(out).write_text(json.dumps(old))
    page = compared(scan, out, capsys)
    assert page["Checks"] != stated["Checks"]
    assert "out.nii was made of 1 volume of the scan, and this is about 3" in page["Notes"][0]

    record.sidecar(out).write_text(json.dumps(stated))
    nib.save(nib.Nifti1Image(data[..., ::-1], oblique()), scan)
    page = compared(scan, out, capsys)
    assert page["Verdict"] == "not known"
    assert "another scan" in page["Notes"][0]
