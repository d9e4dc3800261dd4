"""JSON that seran writes has no NaN and no infinity, which JSON does not know: other programs read it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import seran
from seran import cli, facts
from seran.job import record
from seran.journal import Lines
from seran.quality.scores import Report
from tests.test_bids import save

TO_ITSELF = {"recipes.py", "run.py", "job/resume.py", "weights/file.py", "weights/card.py"}
"""Modules whose JSON is a digest, an option or sealed, and those of seran's own processes."""


def strict(text: str) -> Any:
    """What JavaScript's JSON.parse gives."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_none_are_null() -> None:
    odd = {"a": (math.nan, 1.5, -math.inf), "b": [{"c": np.float64("inf")}], "d": "NaN"}
    assert strict(facts.dumps(odd, indent=1)) == {"a": [None, 1.5, None], "b": [{"c": None}], "d": "NaN"}
    assert facts.finite(json.loads('{"a": 1e999, "b": NaN}')) == {"a": None, "b": None}


def test_modules_write_json_by_way_of_facts() -> None:
    root = Path(seran.__file__).parent
    found = {
        path.relative_to(root).as_posix() for path in root.rglob("*.py") if "json.dumps(" in path.read_text()
    }
    assert found == TO_ITSELF | {"facts.py", "io/dicom/decode.py", "io/dicom/pixels.py"}


def test_a_report_of_scores_without_an_error() -> None:
    """The PSNR of what equals the truth is infinite, and HFEN may be."""
    about = {"volume": "a", "name": "a", "subject": "1", "repository": "r", "contrast": "T1", "voxels": 9}
    numbers = {"psnr": math.inf, "ssim_volume": 1.0, "ssim_slice": 1.0, "hfen": math.inf, "gmsd": 0.0}
    rows = [{**about, "method": name, **numbers, "seconds": 0.1} for name in ("bicubic", "mine")]
    report = Report(["made"], "bicubic", [], rows)
    found = strict(report.json())
    assert [row["psnr"] for row in found["rows"]] == [None, None]
    assert "| inf |" in report.markdown()


def test_an_event(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.dup", lambda _: (_ for _ in ()).throw(OSError()))
    Lines().hear("progress", {"left": math.inf, "seconds": math.nan, "text": "a"})
    found = strict(capsys.readouterr().out)
    assert (found["left"], found["seconds"], found["text"]) == (None, None, "a")


def test_what_a_record_has_of_them_goes_nowhere(
    tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records of earlier versions, or changed ones: group, compare, the page, and a record written again."""
    root, out = tmp_path / "raw", tmp_path / "out"
    scan = root / "sub-01" / "anat" / "sub-01_T2w.nii.gz"
    save(scan, 1)
    (root / "dataset_description.json").write_text('{"Name": "a", "BIDSVersion": "1.10.0", "Authors": [NaN]}')
    words = ["bids", str(root), str(out)]
    assert cli.run([*words, "participant", "--method", "bicubic"]) == 0
    (made,) = out.rglob("*.nii.gz")
    beside = record.sidecar(made)
    known = strict(beside.read_text())
    known["Checks"][1]["value"] = math.inf
    beside.write_text(json.dumps(known | {"Noise": math.nan, "Note": math.nan}).replace("Infinity", "1e999"))
    assert cli.run([*words, "group"]) == 0
    for file in (out / "group.json", out / "dataset_description.json"):
        strict(file.read_text())
    (row,) = strict((out / "group.json").read_text())["Scans"]
    assert row["checks"][1]["value"] is None
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert cli.run(["compare", str(scan), str(made), str(page), "--json"]) == 0
    assert strict(capsys.readouterr().out)["Checks"][1]["value"] is None
    assert not re.search(
        r"\bNaN\b|Infinity", re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)
    )
    found = record.read(made)
    assert found is not None
    assert found.noise is None
    found.write(beside)
    assert strict(beside.read_text())["Note"] is None
    (tmp_path / "thick.json").write_text('{"SliceThickness": NaN}')
    save(tmp_path / "thick.nii.gz", 2)
    capsys.readouterr()
    assert cli.run(["info", str(tmp_path / "thick.nii.gz"), "--json"]) == 0
    assert strict(capsys.readouterr().out)["slice_thickness_mm"] is None
