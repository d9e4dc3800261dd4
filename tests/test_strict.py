"""A verdict of FAIL: what was made is whole, a line names the checks, and the exit status is not 0."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, files
from seran.job import record
from tests.conftest import oblique, phantom, taken

WRONG = ("--window", "hamming:0.46", "--threads", "1")
"""A filter that no scan here had."""
ADVICE = "before you use it, or say --strict off if you know why\n"


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.float32), oblique()), path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two scans: that filter is a FAIL of the first, and a WARN of the second, whose noise is stronger."""
    save(tmp_path / "in" / "a.nii.gz", phantom((26, 34, 5)))
    save(tmp_path / "in" / "b.nii.gz", taken(10.0))
    return tmp_path / "in"


def run(command: str, *words: object) -> int:
    return cli.run([command, *map(str, words), *WRONG])


def whole(out: Path) -> record.Record:
    """The record of a result, all of whose bytes are there."""
    found = record.read(out)
    assert found is not None
    assert found.result_sha256 == (files.sha256_of([out]),)
    assert nib.load(out).get_fdata().any()
    return found


@pytest.mark.slow
def test_one_scan(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out = scans / "a.nii.gz", tmp_path / "out.nii.gz"
    assert run("upscale", scan, out) == 1
    told = capsys.readouterr()
    assert told.out.endswith("; FAIL: residual, see Checks in out.json\n")
    line = f"seran: {out}: FAIL: residual; it is kept: look at it and at Checks in out.json {ADVICE}"
    assert told.err == line
    made, written = whole(out), out.stat()
    assert (made.verdict, made.failed) == ("FAIL", ["residual"])

    assert run("upscale", scan, out, "--resume") == 1  # it is there, and as bad as before
    told = capsys.readouterr()
    there = (
        f"{out} is there already, from the same scan and options; FAIL: residual, see Checks in out.json\n"
    )
    assert told == (there, line)
    assert run("upscale", scan, out, "--resume", "--strict", "off") == 0
    assert capsys.readouterr() == (there, "")
    assert out.stat().st_mtime_ns == written.st_mtime_ns

    assert run("upscale", scan, out, "--force", "--strict", "off") == 0  # which changes nothing of it
    told = capsys.readouterr()
    assert told.out.endswith("; FAIL: residual, see Checks in out.json\n")
    assert told.err == ""
    again = whole(out)
    assert (again.key, again.result_sha256) == (made.key, made.result_sha256)

    assert run("upscale", scan, out, "--force", "--quiet") == 1
    assert capsys.readouterr() == ("", line)
    assert run("upscale", scan, out, "--strict", "maybe") == 2
    assert "--strict maybe: expected on or off" in capsys.readouterr().err


@pytest.mark.slow
def test_a_warning_is_no_failure(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.nii.gz"
    assert run("upscale", scans / "b.nii.gz", out) == 0
    assert capsys.readouterr().out.endswith("; WARN, see Checks in out.json\n")
    assert whole(out).failed == []


def test_the_library_says_it_and_raises_nothing(scans: Path) -> None:
    made = seran.upscale(scans / "a.nii.gz", scanner=seran.Scanner(window="hamming:0.46")).record
    assert made is not None
    assert (made.verdict, made.failed) == ("FAIL", ["residual"])


CLUSTER = pytest.param(("--cluster", "local", "--workers", "1"), id="cluster", marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("where", [pytest.param((), id="alone"), CLUSTER])
def test_many(
    where: tuple[str, ...], scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if where:
        pytest.importorskip("distributed")
    out = tmp_path / "out"
    bad = f"FAIL in 1 result: {out / 'a.nii.gz'} (residual)"
    last = f"seran: {{}} failed; {bad}; look at each {ADVICE}"
    assert run("upscale", scans, out, *where) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(last.format("2 sharpened, 0 there already, 0"))
    assert [whole(out / name).verdict for name in ("a.nii.gz", "b.nii.gz")] == ["FAIL", "WARN"]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}

    assert run("upscale", scans, out, "--resume", "--quiet", *where) == 1
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert lines[-1] == last.format("0 sharpened, 2 there already, 0")
    assert len(lines) == 2  # of all that is there, what is bad
    assert lines[0].endswith("; FAIL: residual, see Checks in a.json\n")
    assert run("upscale", scans, out, "--resume", "--strict", "off", *where) == 0
    assert capsys.readouterr().out == f"0 sharpened, 2 there already, 0 failed; {bad}\n"
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}

    (scans / "c.nii").write_bytes(b"nothing")
    assert run("upscale", scans, out, "--resume", "--strict", "off", *where) == 1
    assert capsys.readouterr().err.endswith(f"seran: 0 sharpened, 2 there already, 1 failed; {bad}\n")


@pytest.mark.slow
def test_of_many_a_few_are_named(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the last line; each has a line of its own."""
    (scans / "b.nii.gz").unlink()
    for i in range(4):
        save(scans / f"more{i}.nii.gz", phantom((26, 34, 5)) + i)
    assert run("upscale", scans, tmp_path / "out") == 1
    *lines, last = capsys.readouterr().err.splitlines()
    assert sum("; FAIL: residual, see Checks in " in line for line in lines) == 5
    assert last.count(" (residual)") == 3
    assert "FAIL in 5 results: " in last
    assert " and 2 more; look at each before" in last


@pytest.mark.slow
def test_each_part_of_an_array_ends_as_its_own_scans_do(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert run("upscale", scans, out, "--resume", "--part", "1/2") == 1
        assert run("upscale", scans, out, "--resume", "--part", "2/2") == 0
    words = ["upscale", str(scans), str(out), "--strict", "off", "--cluster", "sbatch"]
    monkeypatch.setattr("sys.argv", ["seran", *words])
    capsys.readouterr()
    assert cli.run(words) == 0
    assert f"exec seran upscale {scans} {out} --strict off --resume" in capsys.readouterr().out


@pytest.mark.slow
def test_bids(tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, out = tmp_path / "raw", tmp_path / "derived"
    for i, scan in enumerate(sorted(scans.iterdir())):
        path = raw / f"sub-0{i}" / "anat" / f"sub-0{i}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        scan.rename(path)
    (raw / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.10.0"}')
    for counts in ("2 sharpened, 0 there already", "0 sharpened, 2 there already"):
        assert run("bids", raw, out, "participant") == 1
        assert f"seran: {counts}, 0 failed; FAIL in 1 result: " in capsys.readouterr().err
    assert run("bids", raw, out, "participant", "--strict", "off") == 0  # of the same names
    assert "0 sharpened, 2 there already, 0 failed; FAIL in 1 result: " in capsys.readouterr().out
    results = sorted(out.rglob("*_T2w.nii.gz"))
    bad, warned = (whole(path) for path in results)

    (raw / "sub-02" / "anat").mkdir(parents=True)
    (raw / "sub-02" / "anat" / "sub-02_T2w.nii.gz").write_bytes(b"nothing")
    assert run("bids", raw, out, "group") == 1
    counted = "2 of 3 scans are sharpened, 0 failed, 1 not tried, 1 FAIL, 1 WARN"
    assert capsys.readouterr().err.startswith(f"seran: {counted}; ")
    with (out / "group.tsv").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [(r["status"], r["verdict"]) for r in table] == [
        ("done", "FAIL"), ("done", "WARN"), ("missing", "n/a"),
    ]  # fmt: skip
    for row, made in zip(table, (bad, warned), strict=False):
        said = sorted(f"{c.verdict} {c.name}: {c.text}" for c in made.checks if c.verdict in ("FAIL", "WARN"))
        assert row["checks"] == " | ".join(said)
    assert table[2]["checks"] == "n/a"
    page = (out / "group.html").read_text()
    assert f'<h1 class="">{counted}</h1>' in page
    for state in ("missing", "FAIL", "WARN"):
        assert page.count(f'data-state="{state}">') == 1

    # What a record says is a cell of one line, and no markup.
    path = record.sidecar(results[0])
    told = json.loads(path.read_text())
    told["Checks"][0] |= {"verdict": "FAIL", "text": "a\n\tb <script>alert(1)</script>\x1b"}
    path.write_text(json.dumps(told))
    assert run("bids", raw, out, "group") == 1
    with (out / "group.tsv").open(newline="") as file:
        cell = next(csv.DictReader(file, delimiter="\t"))["checks"]
    assert cell.startswith(r"FAIL geometry: a b <script>alert(1)</script>\x1b | FAIL residual: ")
    assert "<script>alert" not in (out / "group.html").read_text()
