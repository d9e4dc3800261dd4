import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from seran import cli, evaluate, weights
from seran.apps.evaluate import chosen, labelled
from seran.classical import bicubic
from seran.data import prepare
from seran.data.pairs import SPLITS, PreparedSet
from seran.data.sources import find
from seran.engines import Engine
from seran.errors import BadInput
from seran.methods import Method, method
from seran.quality import metrics
from seran.quality.scores import Report
from tests.conftest import phantom
from tests.test_prepare import save


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("pairs")
    lines = ["split,path,contrast,subject"]
    for i, (split, contrast) in enumerate([("test", "T2"), ("test", "T2"), ("test", "PD"), ("val", "T2")]):
        save(root / f"{i}.nii.gz", phantom((62, 75, 5), i))
        lines.append(f"{split},{i}.nii.gz,{contrast},s{i}")
    (root / "list.csv").write_text("\n".join(lines))
    return prepare.prepare(
        root / "list.csv", root / "set", prepare.PrepareOptions(scales=(2,)), report=lambda _: None
    )


def perfect(pairs: PreparedSet) -> Method:
    """A method that knows the truth: it finds it by the low slices it is given."""
    volumes = {pairs.low(v, 2).std() / v.unit["2"][1]: v for v in pairs.volumes}

    def predict(low: np.ndarray) -> np.ndarray:
        volume = volumes[min(volumes, key=lambda std: abs(std - low.std()))]
        offset, gain = volume.unit["2"]
        return (np.asarray(pairs.high(volume)) - offset) / gain

    return Method("perfect", (2, 2), predict, "bd", "corner")


def test_scores_means_and_gains(pairs: PreparedSet) -> None:
    report = evaluate.evaluate(pairs, [method("bicubic", 2), perfect(pairs)])
    assert [r["volume"] for r in report.rows] == ["0", "0", "1", "1", "2", "2"]
    volume = pairs.pick("test")[0]
    low, high = np.asarray(pairs.low(volume, 2)), np.asarray(pairs.high(volume))
    made = bicubic(2)(low)
    made[(made < 0) & (low >= 0).repeat(2, 1).repeat(2, 2)] = 0
    expected = metrics.psnr(high, made, float(np.ptp(high)))
    assert report.rows[0]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert all(r["psnr"] > 90 for r in report.rows if r["method"] == "perfect")
    mean = next(m for m in report.means() if (m["contrast"], m["method"]) == ("T2", "bicubic"))
    assert mean["volumes"] == 2
    assert mean["psnr"] == pytest.approx((report.rows[0]["psnr"] + report.rows[2]["psnr"]) / 2)
    text = report.markdown()
    assert "range max - min of the truth" in text
    assert "| SSIM 3-D | SSIM 2-D | HFEN | GMSD |" in text
    assert "HFEN: slices less the truth" in text
    assert all(r["hfen"] < 1e-3 for r in report.rows if r["method"] == "perfect")
    assert "cropped to its measured k-space support" in text
    assert f"| T2 | 2 | bicubic | {mean['psnr']:.2f} | +0.00 |" in text
    assert all(r["seconds"] > 0 for r in report.rows)
    assert json.loads(report.json())["rows"] == report.rows


def test_requests_that_make_no_sense(pairs: PreparedSet) -> None:
    with pytest.raises(BadInput, match="--methods: must include bicubic"):
        evaluate.evaluate(pairs, [perfect(pairs)])
    with pytest.raises(BadInput, match="zerofill undoes td"):
        evaluate.evaluate(pairs, [method("zerofill", 2)])
    with pytest.raises(BadInput, match="'train' is empty"):
        evaluate.evaluate(pairs, [method("bicubic", 2)], "train")


@pytest.mark.parametrize(
    ("scan", "refused"),
    [
        ({"sha256": "", "subject": "elsewhere", "repository": ""}, True),
        ({"sha256": "0", "subject": "s1", "repository": "lab/study"}, True),
        ({"sha256": "0", "subject": "s1", "repository": ""}, False),
        ({"sha256": "0", "subject": "s1", "repository": "lab/other"}, False),
        ({"sha256": "0", "subject": "s9", "repository": "lab/study"}, False),
    ],
    ids=["same file", "same subject", "namesake of unknown origin", "namesake elsewhere", "other subject"],
)
def test_training_subjects_are_not_evaluated(pairs: PreparedSet, scan: dict[str, str], refused: bool) -> None:
    volumes = [dataclasses.replace(v, repository="lab/study") for v in pairs.volumes]
    data = dataclasses.replace(pairs, volumes=volumes)
    scan = {**scan, "sha256": scan["sha256"] or volumes[1].sha256}
    trained = dataclasses.replace(perfect(pairs), scans=(scan,), weights="mine.onnx")
    methods = [method("bicubic", 2), trained]
    if refused:
        with pytest.raises(BadInput, match=r"mine\.onnx was trained on 1\.nii\.gz .*1 of 3 scans here"):
            evaluate.evaluate(data, methods)
    else:
        report = evaluate.evaluate(data, methods)
        assert "scans" not in report.json()


def test_the_test_split_shares_no_subject_with_training(shared: Path) -> None:
    sources = find(shared)
    subjects = {s: {x.subject for x in sources if x.split == s} for s in SPLITS}
    assert not subjects["test"] & (subjects["train"] | subjects["val"])
    assert not subjects["train"] & subjects["val"]


def test_weights_are_told_apart_by_file_or_label(tmp_path: Path) -> None:
    for name in ("ft", "again"):
        shutil.copy(weights.shipped()["srcnn-x2-bd"], tmp_path / f"{name}.onnx")
    ft, again = (str(tmp_path / f"{name}.onnx") for name in ("ft", "again"))
    assert labelled([ft]) == {"srcnn": {"srcnn": Path(ft)}}
    assert labelled([f"mine={ft}"]) == {"srcnn": {"mine": Path(ft)}}
    own = labelled([ft, "srcnn-x2-bd", f"b={again}", "vdsr-x2-bd"])
    assert own == {
        "srcnn": {"ft": Path(ft), "srcnn-x2-bd": Path("srcnn-x2-bd"), "b": Path(again)},
        "vdsr": {"vdsr": Path("vdsr-x2-bd")},
    }
    names = [m.name for m in chosen(["bicubic", "srcnn+", "vdsr"], own, 2, "bd", Engine())]
    assert names == ["bicubic", "ft+", "srcnn-x2-bd+", "b+", "vdsr"]
    assert [m.name for m in chosen([], own, 2, "bd", Engine())] == [
        "bicubic", "ft", "srcnn-x2-bd", "b", "vdsr",
    ]  # fmt: skip
    assert [m.name for m in chosen([], {}, 2, "td", Engine())] == ["zerofill", "seran"]
    with pytest.raises(BadInput, match=r"two files are called ft; tell them apart: LABEL="):
        labelled([ft, ft])
    with pytest.raises(BadInput, match="call it neither as another method"):
        labelled([f"bicubic={ft}"])
    with pytest.raises(BadInput, match="holds weights of srcnn; add srcnn to --methods, or leave it out"):
        chosen(["bicubic", "seran"], labelled([ft]), 2, "bd", Engine())


@pytest.mark.parametrize("name", ["a|b", "a\nb", "a\x1b[2J", " a", "\u2028"])
def test_a_name_that_would_break_tables_is_refused(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Labels of weights, and what is called as its file or folder; in one line, before anything is run."""
    copy = shutil.copy(weights.shipped()["srcnn-x2-bd"], tmp_path / f"{name}.onnx")
    (tmp_path / name).mkdir()
    words = ["evaluate", str(pairs.root), "--methods", "bicubic", "srcnn", "--weights"]
    for more in (
        [f"{name}=srcnn-x2-bd"],
        [str(copy), "srcnn-x2-bd"],
        ["srcnn-x2-bd", "--predictions", str(tmp_path / name)],
    ):
        assert cli.run([*words, *more]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith(f"seran: {name!r}: expected a name that fits into a table"), said


def test_what_a_list_of_scans_says_breaks_no_table() -> None:
    """Contrasts, subjects and names of scans; a row stays a row in Markdown and in CSV."""
    about = {
        "volume": "a|b\nc",
        "name": "a",
        "subject": "s\r\n1|2",
        "repository": "r",
        "contrast": "T1|T2\x1b",
    }
    numbers = {"psnr": 30.0, "ssim_volume": 1.0, "ssim_slice": 1.0, "hfen": 0.0, "gmsd": 0.0}
    rows = [{**about, "method": name, **numbers, "seconds": 0.1} for name in ("bicubic", "mine")]
    report = Report(["mask: the images in a\nb"], "bicubic", [], rows)
    lines = report.markdown().splitlines()
    assert lines[0] == "- mask: the images in a b"
    tables = [re.sub(r"\\\|", "", line).count("|") for line in lines if line.startswith("|")]
    assert tables == [10] * 4 + [9] * 3 + [6] * 4
    assert "| a\\|b c | T1\\|T2\\x1b | mine | 30.00 | +0.00 |" in lines
    assert "\x1b" not in report.markdown()
    table = report.csv().splitlines()
    assert len(table) == 3
    assert [line.count(",") for line in table] == [14] * 3


def test_a_network_is_compared_with_the_one_it_began_with(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paired, by the command, from the shipped weights; both are scored as each is alone."""
    copy = shutil.copy(weights.shipped()["srcnn-x2-bd"], tmp_path / "ft.onnx")
    words = ["evaluate", str(pairs.root), "--slices", "2", "--weights", str(copy), "fast=fast-x2-bd"]
    words += ["shipped=srcnn-x2-bd", "--baseline", "shipped", "--out", str(tmp_path / "report")]
    assert cli.run(words) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "| contrast | method less shipped | subjects |" in said
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {(r["name"], r["method"]): r["psnr"] for r in report["rows"]}
    assert {m for _, m in rows} == {"bicubic", "ft", "fast", "shipped"}
    alone = evaluate.evaluate(pairs, [method("bicubic", 2), method("fast", 2)], slices=2).rows
    assert [rows[r["name"], "fast"] for r in alone if r["method"] == "fast"] == [
        r["psnr"] for r in alone if r["method"] == "fast"
    ]
    [same] = [
        r for r in report["paired"] if (r["contrast"], r["method"], r["metric"]) == ("all", "ft", "psnr")
    ]
    [other] = [
        r for r in report["paired"] if (r["contrast"], r["method"], r["metric"]) == ("all", "fast", "psnr")
    ]
    assert same["difference"] == 0
    gained = [rows[n, "fast"] - rows[n, "shipped"] for n, m in rows if m == "fast"]
    assert other["difference"] == pytest.approx(np.mean(gained)) != 0
