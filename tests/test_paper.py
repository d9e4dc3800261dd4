"""The programs that make the paper's tables, on a made set."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seran import prepare
from tests.conftest import phantom
from tests.test_prepare import save

PAPER = Path(__file__).parents[1] / "paper"


@pytest.mark.slow
def test_table3_trains_scores_and_resumes(tmp_path: Path) -> None:
    lines = ["split,path,contrast,subject"]
    for i, split in enumerate(("train", "val", "test")):
        save(tmp_path / f"{i}.nii.gz", phantom((118, 106, 5), i))
        lines.append(f"{split},{i}.nii.gz,T2,s{i}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    prepare.prepare(tmp_path / "list.csv", tmp_path / "set", scales=(2,), report=lambda _: None)
    command = [sys.executable, PAPER / "table3.py", tmp_path / "set", tmp_path / "runs", "--out", tmp_path]
    options = ["--minutes", "0.1", "--slices", "3", "--stages", "train", "score"]
    for systems in (["bicubic", "nlm", "srcnn"], ["srcnn", "vdsr"]):
        subprocess.run([*map(str, command), *options, "--systems", *systems], check=True, timeout=300)
    made = json.loads((tmp_path / "table3-x2.json").read_text())
    assert "the 3 central slices" in " ".join(made["protocol"])
    rows = made["results"]
    assert list(rows) == ["bicubic", "nlm", "srcnn", "vdsr"]
    assert rows["srcnn"]["parameters"] == 24_513
    assert rows["srcnn"]["gmacs"] == pytest.approx(1.41, abs=0.01)
    assert rows["srcnn"]["patches"] >= 10 * 12
    assert 3 < rows["srcnn"]["training_seconds"] < 60
    assert rows["srcnn"]["means"]["T2"]["volumes"] == 1
    table = (tmp_path / "table3-x2.md").read_text()
    psnr = rows["bicubic"]["means"]["T2"]["psnr"]
    assert f"| Bicubic [2D] | – | – | – | – | {psnr:.2f} / " in table
    assert table.count("| SRCNN |") == 1
