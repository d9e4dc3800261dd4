"""Reports: every check can pass and fail, nothing from a file becomes markup, the page works in a browser."""

import base64
import gzip
import io as streams
import json
import os
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, grid, resample, sharpen, weights
from seran.acquisition import NONE
from seran.classical import CLASSICAL
from seran.degrade import DEGRADATIONS
from seran.engines import Engine
from seran.job import record
from seran.job.options import Options
from seran.job.steps import Steps
from seran.quality import checks, crops, drawn, report, thumbnail
from seran.quality.checks import Check
from seran.quality.provenance import Acquired, Provenance
from seran.quality.window import LEAST, Window, window
from seran.resize import imresize
from seran.sharpen import Method, Normalisation
from seran.volume import Volume
from tests import browser
from tests.conftest import bare, oblique, phantom, planned, shifted
from tests.test_dicom import series

DOCS = Path(__file__).parents[1] / "docs" / "weights"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!-- \u2028"
SERAN = next(iter(weights.shipped()))


def made(
    degradation: str = "bd",
    resampled: bool = False,
    weights: bool = True,
    fraction: tuple[float, float] = (1.0, 1.0),
    noise: float | None = None,
    background: float | None = None,
    undone: bool = False,
    sharpened: bool = False,
) -> Provenance:
    seen = Acquired(fraction, NONE, noise, background, undone, sharpened)
    return Provenance((2, 2), 2, degradation, resampled, weights, seen)


def check(name: str, before: Volume, after: Volume, known: Provenance | None) -> Check:
    """One of all checks."""
    return next(found for found in checks.all_of(before, after, known) if found.name == name)


def pair(degradation: str = "bd", method: str = "bicubic") -> tuple[Volume, Volume]:
    """A scan, and what a classical method makes of it."""
    truth = np.moveaxis(phantom((5, 52, 68)), 0, 2)
    low = np.moveaxis(DEGRADATIONS[degradation]((2, 2))(np.moveaxis(truth, 2, 0)), 0, 2)
    before = Volume(np.maximum(low, 0), oblique())
    found = bare(CLASSICAL[method](2, 1), 2, DEGRADATIONS[degradation].anchor)
    return before, sharpen.upscale(before, found, planned(before, found))[0]


@pytest.mark.parametrize(
    ("change", "known", "verdict"),
    [
        (lambda v: v, made(), "PASS"),
        (lambda v: v.on(v.data, shifted(v.affine, (0.01, 0, 0))), made(), "FAIL"),
        (lambda v: v.on(v.data[:-1], v.affine), made(), "FAIL"),
        (lambda v: v, None, "PASS"),
        (lambda v: v.on(np.ascontiguousarray(v.data[::-1]), _flipped(v)), None, "PASS"),
        (lambda v: v.on(v.data, shifted(v.affine, (3, 0, 0))), None, "WARN"),
        (lambda v: v.on(v.data, shifted(v.affine, (900, 0, 0))), None, "FAIL"),
        (lambda v: v.on(v.data, shifted(v.affine, (0.4, 0, 0))), made(resampled=True), "PASS"),
        (lambda v: v.on(v.data[:20], v.affine), made(resampled=True), "WARN"),
    ],
    ids=["exact", "off", "cut", "same", "mirrored", "moved", "elsewhere", "asked", "part"],
)
def test_geometry(change: Callable[[Volume], Volume], known: Provenance | None, verdict: str) -> None:
    before, after = pair()
    assert check("geometry", before, change(after), known).verdict == verdict


def _flipped(v: Volume) -> np.ndarray:
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = v.data.shape[0] - 1
    return v.affine @ turn


def test_geometry_of_truncated_kspace_keeps_the_first_voxel() -> None:
    before, after = pair("td", "zerofill")
    assert check("geometry", before, after, made("td")).verdict == "PASS"
    assert check("geometry", before, after, made("bd")).verdict == "FAIL"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda x: x, "PASS"),
        (lambda x: x - 1, "FAIL"),
        (lambda x: 1.3 * x, "WARN"),
        (lambda x: 2 * x, "FAIL"),
        (lambda x: 0 * x, "FAIL"),
    ],
)
def test_intensities(change: Callable[[np.ndarray], np.ndarray], verdict: str) -> None:
    before, after = pair()
    changed = after.on(change(after.data), after.affine)
    assert check("intensities", before, changed, made()).verdict == verdict
    unknown = check("intensities", before, changed, None).verdict  # two scans of anything promise nothing
    assert unknown == ("PASS" if verdict == "PASS" else "WARN")


@pytest.mark.parametrize("degradation", ["bd", "td"])
def test_the_residual_of_the_truth_is_nothing_and_of_another_image_fails(degradation: str) -> None:
    truth = np.moveaxis(phantom((5, 52, 68)), 0, 2)
    low = np.moveaxis(DEGRADATIONS[degradation]((2, 2))(np.moveaxis(truth, 2, 0)), 0, 2)
    before, known = Volume(low, oblique()), made(degradation)
    fine = grid.rescale(oblique(), (2, 2, 1), DEGRADATIONS[degradation].anchor)
    exact = check("residual", before, Volume(truth, fine), known)
    assert exact.verdict == "PASS"
    assert "0.00%" in exact.text
    half = np.where(np.indices(truth.shape)[1] < 34, truth, 1.1 * truth).astype(np.float32)
    assert check("residual", before, Volume(half, fine), known).verdict == "WARN"
    assert check("residual", before, Volume(truth[::-1].copy(), fine), known).verdict == "FAIL"
    assert check("residual", before, Volume(truth[:-2], fine), known).verdict == "FAIL"
    assert check("residual", before, Volume(truth, fine), None).verdict == "not known"


def test_the_residual_of_another_grid_counts_where_it_covers_the_input() -> None:
    before, after = pair()
    known = made(resampled=True)
    there = resample.onto(after, resample.finer(before.grid, 2, (0.5, 0.5)))
    assert check("residual", before, there, known).verdict in ("PASS", "WARN")
    assert check("residual", before, there.on(there.data[::-1].copy(), there.affine), known).verdict == "FAIL"
    assert check("residual", before, there.on(there.data[:12], there.affine), known).verdict == "not known"


def test_resolution_is_what_was_acquired() -> None:
    """A grid that was filled with zeros holds less than it shows, and some weights do not know."""
    before, after = pair()
    assert check("resolution", before, after, made()).verdict == "PASS"
    assert check("resolution", before, after, made(weights=False, fraction=(0.5, 1.0))).verdict == "PASS"
    blind = check("resolution", before, after, made(fraction=(0.5, 1.0)))
    assert (blind.verdict, blind.text[:22]) == ("WARN", "measured at 1.8 x 0.8 ")
    assert check("resolution", before, after, made(fraction=(0.5, 1.0), undone=True)).verdict == "PASS"
    assert check("resolution", before, after, made(fraction=(0.4, 1.0), undone=True)).verdict == "WARN"
    assert check("resolution", before, after, None).verdict == "not known"


def test_signal() -> None:
    before, after = pair()
    assert check("signal", before, after, made(noise=0.02)).verdict == "PASS"
    assert "no gain" in check("signal", before, after, made(noise=0.09)).text
    assert check("signal", before, after, made(noise=0.02, sharpened=True)).verdict == "WARN"
    assert check("signal", before, after, made()).verdict == "not known"


def test_noise_and_overshoot() -> None:
    """Bicubic passes; what amplifies noise, and what rings beside a mask, does not."""
    rng = np.random.default_rng(0)
    clean = np.full((96, 96, 5), 100, np.float32)
    clean[30:60, 20:70] = 300
    clean = gaussian_filter(clean, (1, 1, 0))
    before = Volume(clean + rng.normal(0, 5, clean.shape).astype(np.float32), oblique())
    method = bare(CLASSICAL["bicubic"](2, 1))
    after = sharpen.upscale(before, method, planned(before, method))[0]
    assert check("noise", before, after, made()).verdict == "PASS"
    assert check("overshoot", before, after, made()).verdict == "PASS"
    noisy = after.on(after.data + rng.normal(0, 6, after.data.shape).astype(np.float32), after.affine)
    assert check("noise", before, noisy, made()).verdict == "FAIL"
    assert check("overshoot", before, noisy, made()).verdict == "FAIL"
    spike = after.data.copy()
    spike[100, 100, 2] += 700
    assert "at most by 3" in check("overshoot", before, after.on(spike, after.affine), made()).text
    assert check("overshoot", before, after.on(spike, after.affine), made()).verdict == "FAIL"
    masked = before.data.copy()
    masked[:, 70:] = 0
    stripped = Volume(masked, before.affine)
    fine = sharpen.upscale(stripped, method, planned(stripped, method))[0]
    kept = check("overshoot", stripped, fine, made(background=0.0))
    assert kept.text.endswith("constant background 0.00%")
    rim = fine.data.copy()
    rim[:, 137:139] += 80
    assert check("overshoot", stripped, fine.on(rim, fine.affine), made(background=0.0)).verdict == "FAIL"
    assert check("noise", before, after, None).verdict == "not known"


@pytest.mark.parametrize("name", weights.shipped())
def test_spacings_are_those_of_the_cards(name: str) -> None:
    said = (DOCS / f"{name}.md").read_text()
    numbers = re.search(r"truth ([\d.]+) to ([\d.]+) mm in .*, ([\d.]+) to ([\d.]+) mm from slice", said)
    assert numbers is not None
    seen = weights.read(weights.shipped()[name]).evidence.spacings
    assert seen is not None
    assert (*seen.plane, *seen.across) == tuple(map(float, numbers.groups()))


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


def page(path: Path) -> Elements:
    """The elements of a page, which must be what they always are."""
    got = Elements(path.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in got.found]
    over = [a["value"] for tag, a in got.found if tag == "option" and a.get("value") in report.OVER]
    assert over[0] == "difference"
    assert tags.count("script") == 5 + len(over)
    assert not {"iframe", "object", "link", "a"} & set(tags)
    images = [attributes for tag, attributes in got.found if tag == "img"]
    assert {(src or "").split(",")[0] for src in (i.pop("src") for i in images)} == {"data:image/png;base64"}
    for _, attributes in got.found:
        assert not {"src", "href", "srcset", "style"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    policy = next(a["content"] for t, a in got.found if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    return got


def test_headers_names_and_records_are_escaped(stub: Path, tmp_path: Path) -> None:
    before, after = pair()
    for name, volume in (("a<b>&'.nii.gz", before), ("b.nii.gz", after)):
        image = nib.Nifti1Image(volume.data, volume.affine)
        image.header["descrip"] = b"</script><script>alert(1)</script>\"'&<!--"
        image.header["intent_name"] = b"<img src=x>"
        nib.save(image, tmp_path / name)
    source = tmp_path / "a<b>&'.nii.gz"
    args = ["upscale", str(source), str(tmp_path / "b.nii.gz"), "--method", "bicubic", "--force"]
    assert cli.run(args) == 0
    record = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps({**record, HOSTILE: HOSTILE, "list": [HOSTILE]}))
    assert cli.run(["compare", str(source), str(tmp_path / "b.nii.gz"), str(tmp_path / "o.html")]) == 0
    got = page(tmp_path / "o.html")
    assert "</script><script>alert(1)</script>\"'&<!--" in got.text
    assert "<img src=x>" in got.text
    assert HOSTILE in got.text
    assert "a<b>&'.nii.gz" in got.text


def test_a_patient_is_not_named(stub: Path, tmp_path: Path) -> None:
    series(
        tmp_path / "dicom", phantom((26, 34, 4)).astype(np.int16), oblique(),
        PatientName="Doe^<script>alert(1)</script>", PatientID="77-secret", SeriesDescription="<b>T2</b>",
        Modality="MR",
    )  # fmt: skip
    out = tmp_path / "o.html"
    assert cli.run(["compare", str(tmp_path / "dicom"), str(tmp_path / "dicom"), str(out)]) == 0
    got = page(out)
    assert "<b>T2</b>" in got.text
    assert "Doe" not in out.read_text()
    assert "77-secret" not in out.read_text()


def test_json_cannot_leave_its_element() -> None:
    text = report.in_script({HOSTILE: HOSTILE})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {HOSTILE: HOSTILE}


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_names_that_are_no_text(scan: Path, tmp_path: Path, stub: Path) -> None:
    other = scan.rename(tmp_path / os.fsdecode(b"caf\xe9.nii.gz"))
    assert cli.run(["compare", str(other), str(other), str(tmp_path / "page.html")]) == 0
    assert r"caf\udce9.nii.gz" in page(tmp_path / "page.html").text


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_without_the_viewer_nothing_begins(
    how: str, stub: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    niivue = stub / "niivue.umd.js"
    niivue.unlink() if how == "missing" else niivue.write_bytes(b"other")
    out, web = tmp_path / "out.nii.gz", tmp_path / "o.html"
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic", "--report", str(web)]) == 2
    assert cli.run(["compare", str(scan), str(scan), str(web)]) == 2
    said = capsys.readouterr().err
    assert said.count("make viewer") == 2
    assert not out.exists()
    assert not web.exists()


def test_upscale_reports(stub: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, web = tmp_path / "out.nii.gz", tmp_path / "o.html"
    args = ["upscale", str(scan), str(out), "--method", "bicubic", "--report", str(web)]
    assert cli.run(args) == 0
    said = capsys.readouterr().out
    assert "PASS      geometry" in said
    got = page(web)
    assert "InputSHA256" in got.text
    assert cli.run(args) == 2  # both are there
    web.write_text("my notes")
    assert cli.run([*args, "--resume"]) == 2
    assert web.read_text() == "my notes"
    web.unlink()
    assert cli.run([*args, "--resume"]) == 0
    assert cli.run([*args, "--resume"]) == 0  # a page of its own is replaced
    assert web.exists()
    # compare finds the record beside the result, and says the same
    assert cli.run(["compare", str(scan), str(out), str(web), "--force"]) == 0
    assert page(web).text == got.text
    assert "no record says" not in got.text


def test_a_check_that_fails_is_the_exit_status_and_the_result_is_kept(
    stub: Path,
    scan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a scan that is cut off at 255, were that not refused."""
    monkeypatch.setattr("seran.io.voxels.refuse_lossy", lambda volume, dtype: None)
    image = nib.load(scan)
    nib.save(nib.Nifti1Image(40 * image.get_fdata(dtype=np.float32), image.affine), scan)
    out, web = tmp_path / "out.nii.gz", tmp_path / "o.html"
    args = ["--method", "bicubic", "--dtype", "uint8", "--report", str(web)]
    assert cli.run(["upscale", str(scan), str(out), *args]) == 1
    said = capsys.readouterr()
    assert "FAIL      residual" in said.out
    assert f"{out}: FAIL: intensities, residual" in said.err
    assert f"is kept: look at it and at {web} before" in said.err
    assert out.exists()
    assert "FAIL" in page(web).text
    assert cli.run(["upscale", str(scan), str(out), *args, "--resume", "--strict", "off"]) == 0
    said = capsys.readouterr()
    assert "FAIL      residual" in said.out
    assert said.err == ""
    assert cli.run(["compare", str(scan), str(out), str(web), "--force"]) == 1


def test_one_scan_one_report(scan: Path, stub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    web = str(tmp_path / "o.html")
    assert cli.run(["upscale", str(scan), str(scan), str(folder), "--report", web]) == 2
    for bad in ("o.txt", "no/o.html", "scan.nii.gz"):
        assert cli.run(["compare", str(scan), str(scan), str(tmp_path / bad), "--force"]) == 2


def test_of_a_series_the_first_volume_and_said_so(stub: Path, tmp_path: Path) -> None:
    data = np.stack([phantom((26, 34, 5)), np.zeros((26, 34, 5), np.float32)], -1)
    nib.save(nib.Nifti1Image(data, oblique()), tmp_path / "in.nii.gz")
    out, web = tmp_path / "out.nii.gz", tmp_path / "o.html"
    args = ["upscale", str(tmp_path / "in.nii.gz"), str(out), "--method", "bicubic", "--report", str(web)]
    assert cli.run(args) == 0
    assert "its first volume is shown" in page(web).text


def test_a_scan_is_read_again_as_its_result_was_made(
    stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume, the transform, the value of holes and the DICOM series that the record states."""
    volumes = np.stack([phantom((26, 34, 5), i) for i in range(3)], -1)
    volumes[3, 4, 2, 1] = np.nan
    image = nib.Nifti1Image(volumes, oblique())
    image.set_qform(shifted(oblique(), (0, 9, 0)))
    nib.save(image, tmp_path / "in.nii.gz")
    for number in (3, 4):
        named = {"Modality": "MR", "SeriesNumber": number, "SeriesInstanceUID": f"1.2.{number}"}
        series(tmp_path / "study" / str(number), phantom((26, 34, 5), number), oblique(), **named)
    out, web, sides = tmp_path / "out.nii.gz", tmp_path / "o.html", []
    known = report.page
    monkeypatch.setattr(report, "page", lambda *how: sides.append(how[0]) or known(*how))
    for source, words, seen in (
        ("in.nii.gz", "--volume 1 --affine qform --fill 7", np.nan_to_num(volumes[..., 1], nan=7)),
        ("study", "--series 4", None),
    ):
        scan = str(tmp_path / source)
        assert cli.run(["upscale", scan, str(out), "--method", "bicubic", *words.split(), "--force"]) == 0
        capsys.readouterr()
        assert cli.run(["compare", scan, str(out), str(web), "--json", "--force"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["Checks"] == json.loads((tmp_path / "out.json").read_text())["Checks"]
        assert not any("made anew" in note or "another scan" in note for note in told["Notes"])
        if seen is not None:
            assert told["Notes"] == ["Of in.nii.gz volume 1, counted from 0, is shown and checked."]
            np.testing.assert_array_equal(sides[-1].volume.data, seen)
            np.testing.assert_allclose(sides[-1].volume.affine, image.get_qform(), atol=1e-4)
            assert "number 1, counted from 0" in page(web).text
    wrong = json.loads((tmp_path / "out.json").read_text())
    wrong["ReadAs"]["series"] = "9"
    (tmp_path / "out.json").write_text(json.dumps(wrong))
    assert cli.run(["compare", str(tmp_path / "study"), str(out), str(web), "--force"]) == 2
    assert "choose one with --series NUMBER" in capsys.readouterr().err


def test_every_nth_slice_of_a_large_volume_lies_where_it_lay(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pair()
    whole = drawn.shown(before, after)
    assert whole.before is not after
    assert whole.notes == []
    monkeypatch.setattr(drawn, "SHOWN", after.data.size // 2 - 1)
    part = drawn.shown(before, after)
    assert "every 3rd slice, 2 of 5" in part.notes[0]
    for v, old in ((part.before, before), (part.after, after)):
        for k in range(2):
            np.testing.assert_array_equal(v.data[..., k], old.data[..., 1 + 3 * k])
            np.testing.assert_allclose(v.affine @ [3, 4, k, 1], old.affine @ [3, 4, 1 + 3 * k, 1])


def test_the_difference_is_against_cubic_enlargement() -> None:
    before, after = pair()
    drew = drawn.shown(before, after)
    assert np.abs(drew.over["difference"].data).max() < 2e-3 * after.data.max()  # it is bicubic itself
    assert drew.over["difference"].data.shape == after.data.shape


def test_parts_are_where_most_changed_and_apart() -> None:
    rng = np.random.default_rng(0)
    flat = Volume(np.full((120, 110, 6), 100, np.float32), oblique())
    change = rng.normal(0, 0.01, flat.data.shape).astype(np.float32)
    for value, (x, y, z) in ((9, (30, 40, 1)), (-40, (90, 80, 4)), (15, (31, 43, 1)), (50, (100, 20, 2))):
        change[x : x + 6, y : y + 6, z] = value
    scan = flat.on(flat.data.copy(), flat.affine)
    scan.data[95:, :30] = 1  # air
    found = crops.crops("changed", flat.on(change, flat.affine), scan, 10, 100, 2)
    assert len(found) == 2, "neither in air, nor twice the same place, nor mere noise"
    for crop, middle in zip(found, ((93, 83, 4), (33, 43, 1)), strict=True):
        assert np.linalg.norm(np.linalg.solve(flat.affine, [*crop.mm, 1])[:3] - middle) < 5
        assert [s.stop - s.start for s in crop.at] == [36, 40, 1]  # of one length in mm
        assert all(s.start <= m < s.stop for s, m in zip(crop.at, middle, strict=True))
    text = crops.figures(found, scan, scan, Window(0, 200), 100)
    assert text.count("<img") == 6
    assert "changed most: 20.0% of the range" in text


@pytest.mark.parametrize("fat", [250, 400, 1600])
def test_the_window_is_that_of_tissue_whatever_fat_is(fat: float) -> None:
    rng = np.random.default_rng(0)
    data = np.abs(rng.normal(0, 3, (80, 90, 8))).astype(np.float32)
    data[15:65, 15:75] = rng.normal(100, 12, (50, 60, 8))
    data[15:21, 15:75] = fat  # 12 % of what is not air
    scan = Volume(data, oblique())
    low, high = window(scan, Normalisation.of(data))
    assert 0 <= low <= 75
    gain = np.percentile(data, 99.9)
    assert 120 <= high <= max(170, LEAST * gain + 1)


def test_compare_for_programs(
    scan: Path, stub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = tmp_path / "o.html"
    assert cli.run(["compare", str(scan), str(scan), str(web), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["Page"] == str(web)
    assert told["Verdict"] in ("PASS", "not known")
    assert {"name", "verdict", "text", "value"} == set(told["Checks"][0])
    image = nib.load(scan)
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(image.get_fdata(), shifted(image.affine, (900, 0, 0))), moved)
    assert cli.run(["compare", str(scan), str(moved), str(web), "--json", "--force"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["Verdict"] == "FAIL"
    first = web.read_text().split('<div id="verdict">')[1].split("</div>")[0]
    assert first.startswith('<p><b class="FAIL">FAIL</b>')
    assert "<b>FAIL</b> geometry: " in first


def test_another_field_of_view_is_drawn_on_the_grid_of_the_second_and_said_so() -> None:
    before, after = pair()
    moved = after.on(after.data, shifted(after.affine, (2, 0, 0)))
    drew = drawn.shown(before, moved)
    assert (drew.before is not before, drew.voxels) == (True, "other")
    assert drew.over["difference"].data.shape == moved.data.shape
    assert "The field of view of after is up to" in drew.notes[0]


def test_of_many_slices_on_another_grid_before_is_drawn_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pair()
    monkeypatch.setattr(drawn, "SHOWN", after.data.size // 2)
    moved = after.on(after.data, shifted(after.affine, (2, 0, 0)))
    drew = drawn.shown(before, moved)
    assert drew.voxels == "none"
    assert drew.before.data.shape == drew.after.data.shape
    assert drew.notes[0] == "Before is drawn, interpolated, on the grid of after."


def test_packed_voxels_are_right_to_a_step() -> None:
    _, after = pair()
    top = float(after.data.max())
    text = drawn.packed(after, 0.0, top / 255, np.uint8)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))
    np.testing.assert_allclose(image.get_fdata(), after.data, atol=top / 500)
    np.testing.assert_allclose(image.affine, after.affine, atol=1e-4)


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return imread(streams.BytesIO(png))[..., :3]


@pytest.mark.slow
def test_in_a_browser(shared: Path, tmp_path: Path) -> None:
    """From disk, in headless Chromium: slices are drawn, the divider moves, nothing is asked for."""
    browser.needed(report.VIEWER / "niivue.umd.js")
    real = nib.load(shared / "test" / "ds000011_sub-12_inplaneT2.nii.gz")
    real.header["descrip"] = b"</script><script>document.title = 'owned'</script>"
    scan, out, web = (tmp_path / name for name in ("scan.nii.gz", "out.nii.gz", "o.html"))
    nib.save(real, scan)
    assert cli.run(["upscale", str(scan), str(out), "--report", str(web)]) == 0
    with browser.browser(tmp_path) as window:
        window.open(web)
        window.wait("document.getElementById('stage').dataset.ready")
        assert window.run("return document.title") == "scan.nii.gz → out.nii.gz"
        assert not window.run("return 'owned' in window")
        box = "document.getElementById('stage').getBoundingClientRect()"
        left, top, wide, high = (window.run(f"return {box}.{n}") for n in ("left", "top", "width", "height"))

        def stage() -> np.ndarray:
            shot = pixels(window.png())
            return shot[int(top) : int(top + high), int(left) : int(left + wide)]

        def divider() -> tuple[float, float]:
            at = "document.querySelector('.divider').getBoundingClientRect()"
            return tuple(window.run(f"return [{at}.x + {at}.width / 2, {at}.y + {at}.height / 4]"))

        window.run("document.getElementById('voxels').click()")
        first, x = stage(), divider()[0]
        edge = 2 * int(x - left) - 10  # of the first plane
        assert first.std() > 0.1  # something is drawn
        window.drag(divider(), (x + 90, divider()[1]))
        second = stage()
        assert abs(divider()[0] - x - 90) <= 2
        between = np.s_[60:300, int(x - left) + 20 : int(x - left) + 60]
        assert (np.abs(first[between] - second[between]).max(-1) > 0.02).mean() > 0.1
        assert np.array_equal(first[60:300, : int(x - left) - 70], second[60:300, : int(x - left) - 70])
        # all three dividers moved, and the keyboard moves them too
        cuts = "[...document.querySelectorAll('.divider')].map((d) => d.getAttribute('aria-valuenow'))"
        now = window.run(f"return {cuts}")
        assert len(set(now)) == 1
        window.keys("\ue014")  # arrow right
        assert int(window.run(f"return {cuts}")[0]) == int(now[0]) + 2
        # the wheel scrolls both
        where = "document.getElementById('where').textContent"
        at = window.run(f"return {where}")
        still = stage()
        window.wheel((left + 100, top + 200), 120)
        assert window.run(f"return {where}") != at
        moved = np.abs(stage() - still).max(-1) > 0.02
        cut = int(divider()[0] - left)
        assert moved[60:300, 40 : cut - 20].mean() > 0.05
        assert moved[60:300, cut + 10 : edge].mean() > 0.05

        def overlay(former: np.ndarray) -> np.ndarray:
            """Where the stage differs from before, as soon as it does beside the divider."""
            for _ in range(20):
                drawn = np.abs(stage() - former).max(-1) > 0.02
                if drawn[60:300, cut + 10 : edge].any():
                    break
            return drawn

        # the difference is drawn over after
        still = stage()
        window.run("document.getElementById('changes').click()")
        window.wait("!document.getElementById('difference-data')")
        drawn = overlay(still)
        assert drawn[60:300, cut + 10 : edge].mean() > 0.01
        assert not drawn[60:300, 40 : cut - 20].any()
        # and, in its place, what was estimated; then neither
        difference = stage()
        window.run("document.getElementById('what').value = 'estimated'")
        window.run("document.getElementById('what').dispatchEvent(new Event('change'))")
        window.wait("!document.getElementById('estimated-data')")
        drawn = overlay(difference)
        assert drawn[60:300, cut + 10 : edge].mean() > 0.001
        window.run("document.getElementById('changes').click()")
        assert (np.abs(stage() - still).max(-1) > 0.02).mean() < 0.001
        assert [e for e in window.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
        asked = [u for u in window.requests() if not u.startswith(("data:", "blob:"))]
        assert asked == [web.as_uri()]


def test_slices_are_upright_as_radiologists_have_them() -> None:
    """Left is right in the picture, superior or anterior up, and in a sagittal slice anterior left."""
    shape = (9, 11, 7)
    affine = oblique() @ np.diag([-0.5, 0.8, -1.1, 1])
    mm = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    axes = grid.world_axes(affine)
    for world, (across, up) in enumerate([(1, 2), (0, 2), (0, 1)]):
        axis = axes.index(world)
        shown = [thumbnail.upright(mm[..., w].take(3, axis), affine, axis) for w in (across, up)]
        assert (np.diff(shown[0], axis=1) < 0).all()  # from right to left, or from anterior to posterior
        assert (np.diff(shown[1], axis=0) < 0).all()


def resample_to(flat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The nearest pixels of another shape."""
    sizes = zip(flat.shape, shape, strict=True)
    rows, columns = (((np.arange(m) + 0.5) * n / m).astype(int) for n, m in sizes)
    return flat[np.ix_(rows, columns)]


@pytest.mark.slow
def test_what_is_drawn_at_900_pixels(shared: Path, tmp_path: Path) -> None:
    """Before as voxels or cubic, parts that lead to their place, and controls that stay at a zoom of 4."""
    browser.needed(report.VIEWER / "niivue.umd.js")
    scan = shared / "test" / "ds000011_sub-12_inplaneT2.nii.gz"
    out, web = tmp_path / "out.nii.gz", tmp_path / "o.html"
    told = ["--method", "zerofill", "--report", str(web), "--strict", "off"]  # the centre of voxel 0 stays
    assert cli.run(["upscale", str(scan), str(out), *told]) == 0
    data, inverse = nib.load(scan).get_fdata(), np.linalg.inv(nib.load(scan).affine)
    get = "document.getElementById"
    with browser.browser(tmp_path, (900, 700)) as window:

        def choose(name: str, value: str) -> None:
            window.run(
                f"{get}('{name}').value = '{value}'; {get}('{name}').dispatchEvent(new Event('change'))"
            )

        def before() -> tuple[list[float], float]:
            place, value = re.fullmatch(
                r"(.*) mm: before ([-\d.e+]+), after .*", window.run(f"return {get}('where').textContent")
            ).groups()
            return [float(x) for x in place.split(", ")], float(value)

        window.open(web)
        window.wait(f"{get}('stage').dataset.ready")
        assert window.run("return document.documentElement.scrollWidth") <= 900
        # it begins with a slice, not between two, and every plane is drawn as radiologists look at it
        after = nib.load(out)
        middle = np.linalg.inv(after.affine) @ [*before()[0], 1]
        np.testing.assert_allclose(middle, np.rint(middle), atol=0.1)  # a tenth of a mm was told
        low, bright = window.run(f"const f = JSON.parse({get}('facts').textContent); return [f.low, f.high]")
        held, axes = after.get_fdata(dtype=np.float32), grid.world_axes(after.affine)
        for view, world in enumerate((2, 1, 0)):
            choose("view", str(view))
            left, top, wide, high = window.run(
                f"const b = {get}('after').getBoundingClientRect(); return [b.left, b.top, b.width, b.height]"
            )
            shown = pixels(window.png())[
                round(top) : round(top + high), round(left) : round(left + wide), :3
            ].mean(-1)
            axis = axes.index(world)
            flat = thumbnail.upright(held.take(round(middle[axis]), axis), after.affine, axis)
            expected = np.clip(resample_to(flat, (round(high), shown.shape[1])), low, bright)[: len(shown)]
            alike = [np.corrcoef(shown.ravel(), one.ravel())[0, 1] for one in (expected, expected[:, ::-1])]
            assert alike[0] > max(0.9, alike[1] + 0.02), (view, alike)
        choose("view", "3")
        choose("drawn", "voxels")
        window.wait(f"{get}('stage').dataset.before === 'voxels'")
        for i in range(3):
            window.run(f"document.querySelectorAll('.lead')[{i}].click()")
            lead = [
                float(x)
                for x in window.run(f"return document.querySelectorAll('.lead')[{i}].dataset.mm").split()
            ]
            mm, value = before()
            np.testing.assert_allclose(mm, lead, atol=0.8)
            at = np.rint(inverse @ [*mm, 1])[:3].astype(int)
            near = data[tuple(slice(max(0, a - 1), a + 2) for a in at)]
            drawn_as = np.minimum(near, 1.25 * np.percentile(data, 99.9))
            assert np.abs(drawn_as - value).min() <= 8, "one of the scan's own voxels"
        assert window.run(f"return {get}('zoom').value") == "4"
        box = "getBoundingClientRect()"
        stage = window.run(f"const s = {get}('stage').{box}; return [s.left, s.top, s.right, s.bottom]")
        controls = window.run(f"const s = {get}('controls').{box}; return [s.top, s.bottom]")
        high = window.run("return innerHeight")
        assert 0 <= controls[0] < controls[1] <= stage[1] + 1
        assert stage[3] <= high
        cuts = window.run(
            f"return [...document.querySelectorAll('.divider')].map((d) => {{ const s = d.{box}; "
            "return [s.left, s.top, s.right, s.bottom]; })"
        )
        assert len(cuts) == 3
        for left, top, right, bottom in cuts:
            assert stage[0] - 1 <= left
            assert right <= stage[2] + 1
            assert stage[1] - 1 <= top < bottom <= stage[3] + 1
        shot = pixels(window.png())[
            round(stage[1]) + 1 : int(stage[3]) - 1, round(stage[0]) + 1 : int(stage[2]) - 1
        ]
        voxels = shot.copy()
        assert (shot[:, :, :].max(-1) < 0.02).mean() < 0.25, (
            "tissue, enlarged, and no black beside the planes"
        )
        choose("drawn", "cubic")
        window.wait(f"{get}('stage').dataset.before === 'cubic'")
        shot = pixels(window.png())[
            round(stage[1]) + 1 : int(stage[3]) - 1, round(stage[0]) + 1 : int(stage[2]) - 1
        ]
        cut = int(cuts[0][0] + 12 - stage[0])
        changed = np.abs(shot - voxels).max(-1) > 0.02
        assert changed[40:200, 5 : cut - 20].mean() > 0.1
        assert changed[40:200, cut + 20 : 2 * cut - 40].mean() < 0.001, "after stays as it was"
        # level and window move, and come back to the tissue's
        was = window.run(f"return [{get}('level').value, {get}('window').value]")
        choose("window", "120")
        window.run(f"{get}('window').dispatchEvent(new Event('input'))")
        assert np.abs(pixels(window.png())[-200:-20, 40:200] - shot[-200:-20, 40:200][:180]).max() > 0.02
        window.run(f"{get}('tissue').click()")
        assert window.run(f"return [{get}('level').value, {get}('window').value]") == was
        assert [e for e in window.log("browser") if e["level"] in ("SEVERE", "WARNING")] == []


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factors", [(1, 3), (2, 1)])
def test_a_method_that_makes_rows_and_columns_unlike_is_judged_by_both(
    factors: tuple[int, int], axis: int
) -> None:
    """Where it lies, what it leaves and what its weights saw; its record, read again, gives the same."""
    size = np.insert(np.multiply(factors, 0.5), axis, 3.0)
    before = Volume(np.moveaxis(phantom((5, 52, 68)), 0, axis), oblique(tuple(size.tolist())))

    def predict(low: np.ndarray) -> np.ndarray:
        return imresize(low, (low.shape[1] * factors[0], low.shape[2] * factors[1]))

    seen = (0.5, 0.5, 3.0, 3.0)  # times one factor alone, these would not be the scan's
    uneven = Method("uneven", factors, predict, "bd", "corner", weights="toy", spacings=seen)
    steps = Steps(before, Options(), Engine(), uneven)
    after, _, stated = steps(before)
    found = [*stated.checks]
    again = record._parsed(json.loads(json.dumps(stated.stated())))
    assert again.provenance == stated.provenance
    assert again.provenance.factors == factors
    assert found == checks.all_of(before, after, again.provenance)
    assert [found[i].verdict for i in (0, 1)] == ["PASS"] * 2, found
    assert found[2].verdict in ("PASS", "WARN"), found  # a plain bicubic leaves about 1 %
    assert f"bd x{factors[0]}x{factors[1]}," in found[2].text
