"""Many scans: a page for each, which share one viewer, and a list of all that one sorts and filters."""

import base64
import io as streams
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from seran import cli
from seran.job import pages, record, summary
from seran.job.batch import Task
from seran.quality import report
from seran.quality.thumbnail import thumbnail
from seran.quality.window import Window
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
    assert "it was not tried yet" in (out / "group.tsv").read_text()


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
    assert imread(streams.BytesIO(data), "jpg").shape[:2] == (128, 258)
    assert len(picture) < 40_000
    assert len(f'<meta name="thumbnail" content="{picture}">') < pages.HEAD - 2000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pictures_are_upright(axis: int) -> None:
    """What is right, anterior and superior is right and up, before and after."""
    data = np.zeros((40, 44, 48), np.float32)
    bright = [slice(24, 32), slice(26, 34), slice(28, 36)]
    bright[axis] = slice(None)
    data[tuple(bright)] = 100
    for signs in ((1, 1, 1), (-1, 1, 1), (1, -1, -1)):
        data_of = data[tuple(slice(None, None, sign) for sign in signs)].copy()
        volume = Volume(data_of, np.diag([*np.multiply(signs, np.where(np.arange(3) == axis, 3.0, 1.0)), 1]))
        text = thumbnail(volume, volume, Normalisation.of(data), Window(0, 100))
        image = imread(streams.BytesIO(base64.b64decode(text.split(",")[1])), "jpg")[..., 0].astype(float)
        width = (image.shape[1] - 2) // 2
        for half in (image[:, :width], image[:, -width:]):
            rows, columns = np.nonzero(half > 180)
            assert rows.mean() < half.shape[0] / 2
            assert columns.mean() > half.shape[1] / 2


@pytest.mark.slow
def test_500_scans_in_a_browser(tmp_path: Path, picture: str) -> None:
    """The list of 500 is small, draws, sorts by verdict and number, filters, and asks for nothing else."""
    browser.needed()
    web = tmp_path / "all.html"
    summary.write(scans(500, picture, "a.html"), web)
    assert web.stat().st_size < 20e6
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
