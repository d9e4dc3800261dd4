"""Many scans: a page for each, which share one viewer, and a list of all that one sorts and filters."""

import base64
import csv
import io as streams
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from seran import cli, files, io
from seran.job import columns, pages, record, summary
from seran.job.batch import Task
from seran.quality import checks, report
from seran.quality.thumbnail import LETTERS, thumbnail
from seran.quality.window import Window, window
from seran.sharpen import Normalisation
from seran.volume import Volume
from tests import browser
from tests.conftest import oblique, phantom
from tests.test_bids import save

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=document.title=1>\"'&"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two participants, and one whose file is damaged."""
    root = tmp_path / "raw"
    save(root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz", 0)
    save(root / "sub-02" / "anat" / "sub-02_T2w.nii.gz", 1)
    damaged = root / "sub-03" / "anat" / "sub-03_T2w.nii.gz"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"nothing")
    (root / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.10.0"}')
    return root


def run(*args: object) -> int:
    return cli.run([*map(str, args), "--method", "bicubic"])


def statuses(raw: Path, out: Path) -> dict[str, tuple[str, str]]:
    """By the path of a scan, status and reason in the table of the group."""
    cli.run(["bids", str(raw), str(out), "group"])
    with (out / "group.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {r["source"]: (r["status"], r["reason"]) for r in rows}


def test_what_was_changed_or_cannot_be_read_now(raw: Path, tmp_path: Path) -> None:
    """A result of other bytes; a copy in a wrong place; a scan of another suffix that was dropped."""
    out, bold = tmp_path / "out", raw / "sub-01" / "ses-a" / "func" / "sub-01_ses-a_bold.nii"
    save(bold, 4)
    (raw / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz").rename(raw / "sub-01/ses-a/anat/x.nii.gz")
    save(raw / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii", 0)
    run("bids", raw, out, "participant")
    run("bids", raw, out, "participant", "--suffix", "bold")
    shutil.copy(raw / "sub-02/anat/sub-02_T2w.nii.gz", raw / "sub-01/ses-a/anat")
    run("bids", raw, out, "participant")
    bold.unlink()
    bold.symlink_to("gone")
    (made,) = out.rglob("sub-01_ses-a_res-x2_desc-bicubic_T1w.nii")
    held = made.read_bytes()
    made.write_bytes(held[:352] + bytes(len(held) - 352))
    os.utime(made, (1, 1))
    told = statuses(raw, out)
    assert told["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii"] == ("outdated", summary.ALTERED)
    assert told["sub-01/ses-a/func/sub-01_ses-a_bold.nii"] == ("failed", files.GONE)
    assert told["sub-01/ses-a/anat/sub-02_T2w.nii.gz"][0] == "failed"
    assert "its place sub-01, ses-a" in told["sub-01/ses-a/anat/sub-02_T2w.nii.gz"][1]
    assert told["sub-02/anat/sub-02_T2w.nii.gz"] == ("done", "n/a")


class Addresses(HTMLParser):
    """What a page refers to, and its policy."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.nonces: list[str] = []
        self.policy = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(  # noqa: D102
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        found = {name: value or "" for name, value in attrs}
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.nonces += [found["nonce"]] if "nonce" in found else []
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]


def told(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.with_suffix(".json").read_text())["Scans"]


def test_pages_of_a_data_set_share_a_viewer(raw: Path, stub: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("bids", raw, out, "participant", "--report") == 1  # sub-03
    assert {p.name for p in (out / "viewer").iterdir()} == {"niivue-0.0.0.js", "niivue.LICENSE"}
    made = sorted(out.glob("*.html"))
    assert [p.name for p in made] == [
        "sub-01_ses-a_res-x2_desc-bicubic_T1w.html", "sub-02_res-x2_desc-bicubic_T2w.html",
    ]  # fmt: skip
    for page in made:
        found = Addresses(page)
        (script,) = [s for s in found.sources if not s.startswith("data:")]
        assert (page.parent / script).read_bytes() == (stub / "niivue.umd.js").read_bytes()
        assert f"script-src 'nonce-{found.nonces[0]}' 'sha256-" in found.policy
        assert "default-src 'none'" in found.policy
        assert "var niivue" not in page.read_text()
        assert found.links == ["group.html"]
    assert Addresses(made[0]).nonces != Addresses(made[1]).nonces
    before = [p.stat().st_mtime_ns for p in made]
    (out / "viewer" / "niivue-0.0.0.js").unlink()
    assert run("bids", raw, out, "participant", "--report") == 1
    assert [p.stat().st_mtime_ns for p in made] == before, "pages of results that are there stay"
    assert (out / "viewer" / "niivue-0.0.0.js").is_file()
    assert run("bids", raw, out, "group") == 1
    group = Addresses(out / "group.html")
    assert set(group.links) == {p.name for p in made}
    assert sum(s.startswith("data:image/jpeg;base64,") for s in group.sources) == 2
    first, second, third = told(out / "group.html")
    assert first["session_id"] == "ses-a"
    assert second["page"] == made[1].name
    assert {check["verdict"] for check in second["checks"]} <= {"PASS", "WARN", "not known"}
    assert third["reason"].startswith("cannot be read as NIfTI (")
    assert "cannot be read as NIfTI" in (out / "group.tsv").read_text()
    assert (out / "logs" / "sub-03_res-x2_desc-bicubic_T2w.txt").read_text().count("\n") == 1


def test_a_page_of_a_former_result_is_not_shown_for_this_one(raw: Path, stub: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("bids", raw, out, "participant", "--report")
    save(raw / "sub-02" / "anat" / "sub-02_T2w.nii.gz", 5)
    run("bids", raw, out, "participant")  # without pages
    run("bids", raw, out, "group")
    assert [scan["page"] is not None for scan in told(out / "group.html")] == [True, False, False]
    run("bids", raw, out, "participant", "--report")
    run("bids", raw, out, "group")
    assert [scan["page"] is not None for scan in told(out / "group.html")] == [True, True, False]


def test_what_the_status_of_group_says(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("bids", raw, out, "participant")
    assert run("bids", raw, out, "group", "--strict", "off") == 1, "a scan failed"
    shutil.rmtree(raw / "sub-03")
    assert run("bids", raw, out, "group") == 0
    beside = record.sidecar(next((out / "sub-02" / "anat").glob("*.nii.gz")))
    known = json.loads(beside.read_text())
    known["Checks"][0] |= {"verdict": "FAIL", "text": "off"}
    beside.write_text(json.dumps(known | {"Verdict": "FAIL"}))
    assert run("bids", raw, out, "group") == 1, "a check says FAIL"
    assert run("bids", raw, out, "group", "--strict", "off") == 0
    beside.unlink()
    assert run("bids", raw, out, "group", "--strict", "off") == 1, "a result is missing"
    text = (out / "group.tsv").read_text()
    assert "\tmissing\tn/a\tno record beside it says that seran made sub-02_" in text
    next((out / "sub-02" / "anat").glob("*.nii.gz")).unlink()
    assert run("bids", raw, out, "group", "--strict", "off") == 1
    text = (out / "group.tsv").read_text()
    assert "\tmissing\tn/a\tit was not tried yet, or its run was interrupted" in text


def table(out: Path) -> list[dict[str, str]]:
    with (out / "group.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def disagreeing(out: Path, check: str, verdict: str) -> None:
    """Change the record of a result: a check says this, and the verdict that."""
    beside = record.sidecar(out)
    known = json.loads(beside.read_text())
    known["Checks"][0] |= {"verdict": check, "text": "off"}
    beside.write_text(json.dumps(known | {"Verdict": verdict}))


def test_the_verdict_of_a_record_is_the_worst_of_its_checks(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever else it states, which is told of in a line, in a column and on the page."""
    shutil.rmtree(raw / "sub-03")
    out = tmp_path / "out"
    assert run("bids", raw, out, "participant") == 0
    first, second = sorted(out.rglob("*.nii.gz"))
    disagreeing(first, "PASS", "FAIL")
    disagreeing(second, "FAIL", "PASS")
    capsys.readouterr()
    assert run("bids", raw, out, "group") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "seran: 2 records with a verdict that is not the worst of the checks, which counts: "
        f"{first} (FAIL, not WARN), {second} (PASS, not FAIL)"
    )
    assert "2 of 2 scans are sharpened, 1 FAIL, 1 WARN" in said[1]
    assert [(row["verdict"], row["record_verdict"]) for row in table(out)] == [
        ("WARN", "FAIL"), ("FAIL", "PASS"),
    ]  # fmt: skip
    assert [scan["record_verdict"] for scan in told(out / "group.html")] == ["FAIL", "PASS"]
    assert "record_verdict" in json.loads((out / "group.columns.json").read_text())
    assert "<li>its record was changed: it states PASS</li><li>FAIL geometry: off</li>" in (
        (out / "group.html").read_text()
    )
    assert run("bids", raw, out, "participant") == 1
    said = capsys.readouterr().err.splitlines()
    why = "its record states {}, but its checks say {}, and that counts; the record was changed"
    assert said[0].endswith(f"; {why.format('FAIL', 'WARN')}")
    assert said[1].endswith(f"; FAIL: geometry, see Checks in {record.sidecar(second).name}; "
                            f"{why.format('PASS', 'FAIL')}")  # fmt: skip
    disagreeing(first, "PASS", "WARN")
    disagreeing(second, "FAIL", "FAIL")
    assert run("bids", raw, out, "group") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {row["record_verdict"] for row in table(out)} == {"n/a"}


def test_group_without_options_tells_of_all_that_was_made(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each scan and description, whatever the options; with options or labels, those alone."""
    save(raw / "sub-03" / "anat" / "sub-03_T2w.nii.gz", 2)
    save(raw / "sub-02" / "func" / "sub-02_task-rest_bold.nii.gz", 7, (20, 22, 4, 3))
    save(raw / "sub-03" / "func" / "sub-03_task-rest_bold.nii.gz", 7, (20, 22, 4, 3))
    out = tmp_path / "out"
    run("bids", raw, out, "participant", "--participant-label", "01", "02")
    run("bids", raw, out, "participant", "--participant-label", "02", "--scale", "3")
    run("bids", raw, out, "participant", "--participant-label", "02", "--suffix", "bold", "--strict", "off")
    capsys.readouterr()

    def rows(*words: object) -> list[tuple[str, str, str, str]]:
        told = cli.run(["bids", str(raw), str(out), "group", *map(str, words)])
        assert told == any(row["status"] != "done" or row["verdict"] == "FAIL" for row in table(out))
        return [
            (row["source"].split("/")[-1][4:], row["res"], row["desc"], row["status"]) for row in table(out)
        ]

    every = [
        ("01_ses-a_T1w.nii.gz", "x2", "bicubic", "done"), ("02_T2w.nii.gz", "x2", "bicubic", "done"),
        ("02_T2w.nii.gz", "x3", "bicubic", "done"), ("02_task-rest_bold.nii.gz", "x2", "bicubic", "done"),
        ("03_T2w.nii.gz", "n/a", "n/a", "missing"),
    ]  # fmt: skip
    assert rows() == every
    assert (
        "3 of 4 scans are sharpened (res-x2_desc-bicubic 3, res-x3_desc-bicubic 1), 0 failed, 1 not tried"
        in (capsys.readouterr().err)
    )
    page = (out / "group.html").read_text()
    assert "<p>made, <time>20" in page
    assert "res-x3_desc-bicubic: Sharpened by Bicubic [2D]. Not for diagnosis" in page
    assert "Grid: 3 times the input" in page
    assert "results without a page; this makes pages: seran bids " in page
    assert rows("--participant-label", "02") == every[1:4]
    assert "<li>Only --participant-label 02</li>" in (out / "group.html").read_text()
    assert rows("--method", "bicubic", "--scale", "3", "--session-label", "a", "--suffix", "T1w") == [
        ("01_ses-a_T1w.nii.gz", "x3", "bicubic", "missing")
    ]
    assert "only --session-label a, --suffix T1w, results of res-x3_desc-bicubic" in capsys.readouterr().err
    assert '<h1 class="none">0 of 1 scans' in (out / "group.html").read_text()
    run("bids", raw, out, "participant", "--participant-label", "03")
    assert rows() == [*every[:4], ("03_T2w.nii.gz", "x2", "bicubic", "done")]
    assert '<h1 class="">4 of 4 scans' in (out / "group.html").read_text()


def test_group_finds_maps_failures_and_what_is_lost(raw: Path, tmp_path: Path) -> None:
    """Maps are no results; a text in logs is; of a record without its result, and the reverse, it says so."""
    out, words = (
        tmp_path / "out",
        ("--method", "fast", "--acquisition", "bicubic", "--maps", "--strict", "off"),
    )
    assert cli.run(["bids", str(raw), str(out), "participant", *words]) == 1
    named = "res-x2_desc-fastAcquisitionBicubic"
    assert len(list(out.rglob("*estimated_T2w.nii.gz"))) == 1

    def told_of() -> list[tuple[str, str]]:
        cli.run(["bids", str(raw), str(out), "group"])
        return [(row["status"], row["reason"]) for row in table(out)]

    first, second, third = told_of()
    assert (first, second, third[0]) == (("done", "n/a"), ("done", "n/a"), "failed")
    assert {row["desc"] for row in table(out)} == {"fastAcquisitionBicubic"}
    (out / "sub-01" / "ses-a" / "anat" / f"sub-01_ses-a_{named}_T1w.nii.gz").unlink()
    beside = out / "sub-02" / "anat" / f"sub-02_{named}_T2w.json"
    beside.write_text("{")
    assert told_of()[:2] == [
        ("missing", f"its record is there, the result is gone: sub-01_ses-a_{named}_T1w.nii.gz"),
        (
            "missing",
            f"its record, {beside.name}, cannot be used (Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1))",
        ),
    ]


def test_outdated_results_and_orphans(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By sizes and times; a scan whose times alone are others is read, and is what it was."""
    out = tmp_path / "out"
    shutil.rmtree(raw / "sub-03")
    save(raw / "sub-04" / "anat" / "sub-04_T2w.nii.gz", 4)
    run("bids", raw, out, "participant")
    read: list[Path] = []
    of = files.sha256_of
    monkeypatch.setattr("seran.files.sha256_of", lambda paths: (read.extend(paths), of(paths))[1])
    assert cli.run(["bids", str(raw), str(out), "group"]) == 0
    assert read == []
    one = raw / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_T1w.nii.gz"
    os.utime(one, (1, 1))
    save(raw / "sub-02" / "anat" / "sub-02_T2w.nii.gz", 5)
    shutil.rmtree(raw / "sub-04")
    capsys.readouterr()
    for words in ((), ("--method", "bicubic")):
        assert cli.run(["bids", str(raw), str(out), "group", *words]) == 1
        assert [row["status"] for row in table(out)] == ["done", "outdated", "orphan"]
        assert table(out)[1]["reason"].startswith("the scan was changed after the result was made")
        assert "1 of 2 scans are sharpened, 1 outdated, 2 WARN, 1 result of scans that are gone" in (
            capsys.readouterr().err.replace("1 outdated, 1 WARN", "1 outdated, 2 WARN")
        )
    run("bids", raw, out, "participant")
    assert cli.run(["bids", str(raw), str(out), "group"]) == 0, (
        "what is left of a scan that is gone is no fault"
    )
    assert [row["status"] for row in table(out)] == ["done", "done", "orphan"]


def test_the_table_has_numbers_and_says_what_they_are(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("bids", raw, out, "participant")
    run("bids", raw, out, "group")
    told_in_json = told(out / "group.html")
    known = json.loads((out / "group.columns.json").read_text())
    for row, scan in zip(table(out), told_in_json, strict=True):
        assert list(row) == list(known)
        assert set(row.values()) & {"", None} == set()
        if scan["status"] == "failed":
            assert {row["result"], row["voxel_after_i"], row["check_residual"], row["seconds"]} == {"n/a"}
            continue
        image = nib.load(out / row["result"])
        sizes = [float(row[f"voxel_after_{axis}"]) for axis in "ijk"]
        np.testing.assert_allclose(sizes, image.header.get_zooms(), rtol=1e-5)
        np.testing.assert_allclose(
            [float(row[f"voxel_before_{axis}"]) for axis in "ijk"], (0.9, 0.8, 3.3), 1e-5
        )
        for check in scan["checks"]:
            value = row[f"check_{check['name']}"]
            assert (
                value == "n/a"
                if check["value"] is None
                else float(value) == pytest.approx(check["value"], 1e-5)
            )
    assert known["voxel_after_k"]["Units"] == "mm"
    assert set(known["status"]["Levels"]) == {"done", "failed", "missing", "outdated", "orphan"}
    assert all(column["Description"] for column in known.values())


def test_every_check_has_a_column() -> None:
    before = Volume(phantom((26, 22, 5)), oblique())
    found = {check.name for check in checks.all_of(before, before, None)}
    assert found | {"uncertainty"} == set(columns.CHECKS)


def test_a_folder_has_a_page_for_each_scan_and_one_of_all(
    scan: Path, stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, out, web = tmp_path / "scans", tmp_path / "out", tmp_path / "all.html"
    (scans / "a & b").mkdir(parents=True)
    shutil.copy(scan, scans / "one.nii.gz")
    shutil.copy(scan, scans / "a & b" / "two #1.nii.gz")
    (scans / "bad.nii.gz").write_bytes(b"nothing")
    assert run("upscale", scans, out, "--report", web) == 1
    assert f"2 sharpened, 0 there already, 1 failed; {web}, " in capsys.readouterr().err
    assert "cannot be read" in (out / "bad.failed.txt").read_text()
    deep = out / "a & b" / "two #1.html"
    (script,) = [s for s in Addresses(deep).sources if not s.startswith("data:")]
    assert script == "../viewer/niivue-0.0.0.js"
    assert Addresses(deep).links == ["../../all.html"]
    page = web.read_text()
    assert "<p>scans, <time>" in page
    assert "<li>Sharpened by Bicubic [2D]. Not for diagnosis. Grid: 2 " in page
    assert Addresses(web).links == ["out/a%20%26%20b/two%20%231.html"] * 2 + ["out/one.html"] * 2
    assert [s["reason"][:23] for s in told(web) if s["reason"]] == ["cannot be read as NIfTI"]
    shutil.copy(scan, scans / "bad.nii.gz")
    assert run("upscale", scans, out, "--report", web) == 2, "a list is there"
    assert run("upscale", scans, out, "--report", web, "--resume") == 0
    assert not (out / "bad.failed.txt").exists()
    assert [s["status"] for s in told(web)] == ["done"] * 3
    (out / "one.html").write_text("mine")
    capsys.readouterr()
    assert run("upscale", scans, out, "--report", web, "--resume") == 1
    assert "one.html exists; give --force to replace it" in capsys.readouterr().err
    assert (out / "one.html").read_text() == "mine"


def scans(count: int, picture: str, page: str = "") -> list[summary.Scan]:
    """Scans as `summary.of` tells them: every 7th is missing, every 5th of the others says FAIL."""
    made = []
    for i in range(count):
        missing, verdict = i % 7 == 6, "FAIL" if i % 5 == 4 else "PASS"
        check = {"name": "noise", "verdict": verdict, "text": HOSTILE, "value": 1.0}
        scan: summary.Scan = {
            "participant_id": f"=sub-{i}", "source": f"sub-{i:03}/{HOSTILE}",
            "status": "missing" if missing else "done",
            "verdict": None if missing else verdict, "reason": HOSTILE if missing else "", "result": None,
            "page": None if missing else Path(page or HOSTILE), "picture": "" if missing else picture,
            "checks": [] if missing else [check], "seconds": float((i * 37) % 101),
            "method": "bicubic" if page else HOSTILE,
        }  # fmt: skip
        made.append(scan)
    return made


def test_everything_on_the_page_of_all_is_escaped(tmp_path: Path) -> None:
    web = tmp_path / "all.html"
    summary.write(scans(8, HOSTILE), web)
    found, text = Addresses(web), web.read_text()
    assert text.count("<script") == 1
    assert "<img" not in text
    assert found.sources == []
    assert len(found.links) == 7
    assert not [link for link in found.links if re.search("[<>\"'& ]", link)]
    assert re.search(
        "script-src 'sha256-[^' ]+'; style-src 'sha256-[^' ]+'; img-src data:", found.policy.replace("\n", "")
    )
    rows = [line.split("\t") for line in web.with_suffix(".tsv").read_text().splitlines()]
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[1][0] == "'=sub-0"  # no formula


@pytest.fixture(scope="module")
def picture() -> str:
    """The largest there is: noise."""
    rng = np.random.default_rng(0)
    before = Volume(rng.uniform(0, 100, (200, 180, 5)).astype(np.float32), oblique())
    return thumbnail(before, before, Normalisation.of(before.data), Window(0, 100))


def test_pictures_are_small(picture: str) -> None:
    data = base64.b64decode(picture.removeprefix("data:image/jpeg;base64,"))
    assert imread(streams.BytesIO(data), "jpg").shape[:2] == (102, 258)  # all of 180x144 mm
    assert len(picture) < 40_000
    assert len(f'<meta name="thumbnail" content="{picture}">') < pages.HEAD - 2000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pictures_are_upright(axis: int) -> None:
    """Superior or anterior is up, the patient's right or the nose left; letters say so."""
    data = np.zeros((40, 44, 48), np.float32)
    bright = [slice(24, 32), slice(26, 34), slice(28, 36)]
    bright[axis] = slice(None)
    data[tuple(bright)] = 100
    for signs in ((1, 1, 1), (-1, 1, 1), (1, -1, -1)):
        data_of = data[tuple(slice(None, None, sign) for sign in signs)].copy()
        volume = Volume(data_of, np.diag([*np.multiply(signs, np.where(np.arange(3) == axis, 3.0, 1.0)), 1]))
        for half in halves(thumbnail(volume, volume, Normalisation.of(data), Window(0, 100))):
            rows, found = np.nonzero(half[:, 9:-9] > 180)
            assert rows.mean() < half.shape[0] / 2
            assert found.mean() + 9 < half.shape[1] / 2
            middle = half.shape[0] // 2
            for name, left in zip("AP" if axis == 0 else "RL", (2, half.shape[1] - 8), strict=True):
                dots = half[middle - 5 : middle + 5, left : left + 6].reshape(5, 2, 3, 2).mean((1, 3)) > 128
                assert ["".join("01"[int(dot)] for dot in row) for row in dots] == [*LETTERS[name]]


def test_pictures_show_the_slice_to_its_edges() -> None:
    """What is folded over lies there: bright lines along all four edges of a slice of 300x200 voxels."""
    data = np.zeros((300, 200, 3), np.float32)
    data[:6], data[-6:], data[:, :6], data[:, -6:] = 100, 100, 100, 100
    data[150, 100] = 100
    volume = Volume(data, np.diag([0.5, 1, 3, 1.0]))  # 150x200 mm
    for half in halves(thumbnail(volume, volume, Normalisation.of(data), Window(0, 100))):
        assert half.shape == (128, 96), "square pixels"
        assert min(half[0, 5:-5].min(), half[-1, 5:-5].min(), half[5:50, 0].min(), half[5:50, -1].min()) > 80
        assert half[10:-10, 15:-15].mean() < 10


def test_a_page_of_500_scans_has_less_than_5_mb(shared: Path, tmp_path: Path) -> None:
    """Of heads, a knee and a pelvis, which fills its pictures."""
    found = []
    for name in ("test/ds000011_sub-12_inplaneT2", "test/pymskt_knee_e1_PD", "pair/prostatex-0001_tra_T2w"):
        volume = io.read(shared / f"{name}.nii.gz")
        norm = Normalisation.of(volume.data)
        found.append(thumbnail(volume, volume, norm, window(volume, norm)))
    many = scans(500, "")
    for i, scan in enumerate(many):
        scan["picture"] = found[i % 3]
    web = tmp_path / "all.html"
    summary.write(many, web)
    assert web.read_text().count("data:image/jpeg") == 500
    assert web.stat().st_size < 5e6


def halves(text: str) -> list[np.ndarray]:
    """Before and after of a picture, as they are seen."""
    image = imread(streams.BytesIO(base64.b64decode(text.split(",")[1])), "jpg")[..., 0].astype(float)
    width = (image.shape[1] - 2) // 2
    return [image[:, :width], image[:, -width:]]


@pytest.mark.slow
def test_500_scans_in_a_browser(tmp_path: Path, picture: str) -> None:
    """The list of 500 is small, draws, sorts by verdict and number, filters, and asks for nothing else."""
    browser.needed()
    web = tmp_path / "all.html"
    summary.write(scans(500, picture, "a.html"), web)
    rows = "[...document.querySelectorAll('#scans tbody tr')]"
    shown = f"{rows}.filter((row) => !row.hidden)"
    with browser.browser(tmp_path, (1440, 900)) as window:
        window.open(web)
        assert window.run("return document.title").startswith("seran: 429 of 500 scans are sharpened")
        assert window.run(f"return {shown}.length") == 500
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        ready = "[...document.images].filter((image) => image.complete && image.naturalWidth === 258).length"
        window.wait(f"{ready} >= 5")
        assert window.run(f"return {ready}") < 429, "those far below wait"

        def column(name: str, cell: int) -> list[str]:
            head = "[...document.querySelectorAll('#scans thead button')]"
            window.run(f"{head}.find((one) => one.textContent === '{name}').click()")
            return window.run(f"return {rows}.map((row) => row.cells[{cell}].textContent)")

        verdicts = column("verdict", 2)
        assert list(dict.fromkeys(verdicts)) == ["missing", "FAIL", "PASS"]
        assert column("verdict", 2) == verdicts[::-1]
        numbers = [float(text) for text in column("seconds", 8)]
        assert numbers == sorted(numbers)
        window.run("document.querySelector('input[value=PASS]').click()")
        assert set(window.run(f"return {shown}.map((row) => row.dataset.state)")) == {"missing", "FAIL"}
        window.run("const w = document.getElementById('words'); w.value = 'sub-004 noise';"
                   "w.dispatchEvent(new Event('input'))")  # fmt: skip
        assert window.run(f"return {shown}.length") == 1
        assert window.run("return document.getElementById('seen').textContent") == "1 of 500 shown"
        assert [e for e in window.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
        assert [u for u in window.requests() if not u.startswith("data:")] == [web.as_uri()]


@pytest.mark.slow
def test_a_page_with_a_shared_viewer_in_a_browser(tmp_path: Path) -> None:
    """From disk: it draws; without the folder of its viewer it says what is missing."""
    browser.needed(report.VIEWER / "niivue.umd.js")
    (tmp_path / "scans" / "in").mkdir(parents=True)
    image = nib.Nifti1Image(phantom((60, 64, 5)), oblique())
    nib.save(image, tmp_path / "scans" / "in" / "a.nii.gz")
    out = tmp_path / "out"
    assert run("upscale", tmp_path / "scans", out, "--report", tmp_path / "all.html") == 0
    page = out / "in" / "a.html"
    assert page.stat().st_size < 1e6
    with browser.browser(tmp_path) as window:
        window.open(page)
        window.wait("document.getElementById('stage').dataset.ready")
        script = out / "viewer" / f"niivue-{report.viewer()[0]}.js"
        asked = [u for u in window.requests() if not u.startswith(("data:", "blob:"))]
        assert asked == [page.as_uri(), script.as_uri()]
        assert [e for e in window.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
        script.unlink()
        window.open(page)
        window.wait("document.getElementById('state').textContent.includes('“viewer”')")


def test_tasks_that_cannot_be_done_are_told_as_they_are() -> None:
    task = Task(Path("raw/sub-1/anat/sub-1_T1w.nii"), Path("out/x.nii"), wrong="gone")
    found = summary.of(task, Path("raw"))
    assert (found["source"], found["reason"]) == ("sub-1/anat/sub-1_T1w.nii", "gone")
