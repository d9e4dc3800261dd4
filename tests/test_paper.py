"""The programs that make the paper's tables and figures, on a made set."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch

from seran import weights
from seran.classical import bicubic
from seran.data import prepare
from seran.data.pairs import load_prepared
from seran.export import export
from seran.models.fast import Fast
from seran.quality import metrics
from seran.recipes import RECIPES
from seran.run import Run
from tests.conftest import oblique, phantom
from tests.test_engines import alone
from tests.test_prepare import save

PAPER = Path(__file__).parents[1] / "paper"


def run(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PAPER / f"{program}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def made(program: str, *args: object) -> str:
    done = run(program, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_operations_are_those_of_the_network_as_published() -> None:
    counted = alone("import table3; print(table3.gmacs('seran', 2))", PYTHONPATH=str(PAPER))
    body, upsampling, tail, attention = 81 * 64 * 576 + 576, 256 * 576, 4 * 576, 4 * 64 * 64
    assert float(counted) == pytest.approx(14400 * (body + upsampling + tail + attention) / 1e9, rel=1e-3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of three small scans."""
    folder = tmp_path_factory.mktemp("paper")
    lines = ["split,path,contrast,subject"]
    for i, split in enumerate(("train", "val", "test")):
        save(folder / f"{i}.nii.gz", phantom((118, 106, 5), i))
        lines.append(f"{split},{i}.nii.gz,T2,s{i}")
    (folder / "list.csv").write_text("\n".join(lines))
    prepare.prepare(folder / "list.csv", folder / "set", prepare.PrepareOptions(scales=(2,)), lambda _: None)
    return folder / "set"


@pytest.mark.slow
def test_table3_trains_scores_and_resumes(pairs: Path, tmp_path: Path) -> None:
    options = ["--data", pairs, "--runs", tmp_path / "runs", "--out", tmp_path, "--slices", "3"]
    options += ["--stages", "train", "score"]
    late = run("table3", *options[:-2], "score", "time", "--budget", "0.1", "--systems", "nlm")
    assert late.returncode == 2  # before anything is scored that could not be timed
    assert "one of val with 240x240x96 voxels to time methods on; no scan of val is that large" in late.stderr
    assert not [*tmp_path.iterdir()]
    made("table3", *options, "--budget", "0.1", "--systems", "nlm")
    for systems in (["bicubic", "srcnn"], ["srcnn", "vdsr"]):
        made("table3", *options, "--budget", "0.1", "--systems", *systems)
    kept = json.loads((tmp_path / "table3-x2-minutes.json").read_text())
    assert "the 3 central slices" in " ".join(kept["protocol"])
    rows = kept["results"]
    assert list(rows) == ["bicubic", "nlm", "srcnn", "vdsr"]
    assert rows["srcnn"]["parameters"] == 24_513
    assert rows["srcnn"]["gmacs"] == pytest.approx(1.41, abs=0.01)
    # A pilot of 0.4 s says how many steps are 6 s, at least 10; how long they take then is another matter.
    assert rows["srcnn"]["patches"] >= 9 * 12 + 8  # of 10 steps the last one sees fewer and larger patches
    card = weights.read(tmp_path / "runs" / "srcnn-x2-bd.onnx").card
    assert rows["srcnn"]["training_seconds"] == card.seconds > 0
    assert rows["srcnn"]["means"]["T2"]["volumes"] == 1
    table = (tmp_path / "table3-x2-minutes.md").read_text()
    psnr = rows["bicubic"]["means"]["T2"]["psnr"]
    assert f"| Bicubic [2D] | – | – | – | – | – | {psnr:.2f} / " in table
    assert table.count("| SRCNN |") == 1

    # Neither another protocol nor another budget is mixed into what is there.
    other = run("table3", *options[:-1], "score", "--slices", "2", "--budget", "0.1")
    assert other.returncode == 2
    assert "name another --out" in other.stderr
    assert "the 2 central slices" in other.stderr
    options[5] = tmp_path / "elsewhere"
    other = run("table3", *options, "--budget", "0.2", "--systems", "srcnn")
    assert other.returncode == 2
    assert "expected a run of 0.2 minutes" in other.stderr


@pytest.mark.slow
def test_what_is_pruned_is_the_layer_that_does_nothing(pairs: Path, tmp_path: Path) -> None:
    """All but one add 1, which the last convolution takes off: without one the result is off by 1."""
    full = Run(dataclasses.replace(RECIPES["fast-x2-bd"], options={"width": 8, "depth": 4}))
    network = next(part for part in full.best.modules() if isinstance(part, Fast))
    with torch.no_grad():
        for name, values in network.named_parameters():
            values.zero_()
            if name.startswith("body") and values.ndim == 4:
                values[:, :, 1, 1] = torch.eye(8)
            if name.startswith("body") and values.ndim == 1 and "2" not in name:
                values += 1
        network.head.bias += 5
        network.tail.weight[:, 0, 2, 2] = 1
        network.tail.bias -= 5 + 3 + 5
    export(full, tmp_path / "full.onnx")
    made("prune", tmp_path / "full.onnx", pairs, tmp_path / "less.onnx", "--depth", "3")
    less = weights.read(tmp_path / "less.onnx")
    assert less.card.options == {"width": 8, "depth": 3}
    assert "1 of 4 layers" in less.card.notes
    kept = weights.tensors(less.data)
    biases = [kept[name].mean() for name in sorted(kept) if name.endswith("bias") and "body" in name]
    assert biases == [1, 1, 1]
    wrong = run("prune", tmp_path / "less.onnx", pairs, tmp_path / "same.onnx", "--depth", "3")
    assert wrong.returncode == 2
    assert "expected a depth from 1 to 2" in wrong.stderr


@pytest.mark.slow
def test_table3_by_patches_goes_on_over_calls_and_marks_what_is_short(pairs: Path, tmp_path: Path) -> None:
    options = ["--data", pairs, "--runs", tmp_path / "runs", "--out", tmp_path, "--slices", "3"]
    options += ["--stages", "train", "score", "--patches", "480", "--systems", "bicubic", "srcnn"]
    made("table3", *options, "--minutes", "0.001")
    path, short = tmp_path / "table3-x2.json", tmp_path / "runs" / "srcnn-x2-bd-short.onnx"
    row = json.loads(path.read_text())["results"]["srcnn"]
    assert row["short"]
    assert 0 < row["patches"] < 400
    assert "| SRCNN † |" in (tmp_path / "table3-x2.md").read_text()
    assert short.is_file()

    made("table3", *options)
    rows = json.loads(path.read_text())["results"]
    assert not rows["srcnn"]["short"]
    assert 400 < rows["srcnn"]["patches"] <= 480  # patches of the last steps are larger, and fewer
    assert rows["srcnn"]["training_seconds"] > row["training_seconds"]
    assert not short.exists()
    text = (tmp_path / "table3-x2.md").read_text()
    assert "†" not in text
    assert f"({rows['srcnn']['means']['T2']['gain']:+.2f}) |" in text  # of one subject: no interval


def test_gains_have_intervals_over_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paired with bicubic's PSNR on the same scan; two scans of a subject are no two subjects."""
    monkeypatch.syspath_prepend(str(PAPER))
    import table3

    def row(psnr: list[float]) -> dict[str, Any]:
        subjects = ["a", "b", "c", "d", "e", "f", "f"]
        volumes = [
            {"name": f"{i}", "subject": s, "contrast": "T1", "psnr": p}
            for i, (s, p) in enumerate(zip(subjects, psnr, strict=True))
        ]
        return {"means": {"T1": {"gain": float(np.mean(psnr)) - 35}}, "volumes": volumes}

    rows = {"bicubic": row([30, 40] * 3 + [35]), "srcnn": row([32, 42] * 3 + [37])}
    assert table3.gain(rows, "srcnn", "T1") == "+2.00, +2.00 to +2.00"
    assert table3.gain(rows, "bicubic", "T1") == "+0.00"
    rows["srcnn"] = row([31, 43] * 3 + [38])
    low, high = (float(x) for x in table3.gain(rows, "srcnn", "T1").split(", ")[1].split(" to "))
    assert 1 < low < 1.7
    assert 2.4 < high < 3
    for one in rows.values():
        one["volumes"] = one["volumes"][1:]  # five subjects are left
    assert ", " not in table3.gain(rows, "srcnn", "T1")


@pytest.mark.slow
def test_variants_and_seeds_make_the_steps_of_seran(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PAPER))
    import ablation
    import table1

    small = {"width": 8, "depth": 2}
    attention = {**small, "positions": [2], "primitives": 4, "embed": 4}
    options = {"edsr": small, "seran": attention, "seab": attention, "seab-norescale": attention}
    recipes = {
        f"{name}-x2-bd": dataclasses.replace(
            RECIPES[f"{name}-x2-bd"],
            options={**RECIPES[f"{name}-x2-bd"].options, **changed},
            patch=12,
            batch=2,
        )
        for name, changed in options.items()
    }
    monkeypatch.setattr(ablation, "RECIPES", recipes)
    keys = {"data": pairs, "runs": tmp_path / "runs", "out": tmp_path, "slices": 3}
    ablation.compare("table1", table1.TITLES, (0,), budget=0.02, **keys)
    before = json.loads((tmp_path / "table1.json").read_text())
    ablation.compare("table1", table1.TITLES, (0, 1), budget=0.02, **keys)
    kept = json.loads((tmp_path / "table1.json").read_text())
    rows = kept["results"]
    assert {key: rows[key] for key in before["results"]} == before["results"]
    assert len(rows) == 2 * len(before["results"]) == 8
    assert len({row["sha256"] for row in rows.values()}) == 8
    steps = {(tmp_path / "runs" / key / "log.csv").read_text().splitlines()[-1].split(",")[0] for key in rows}
    assert len(steps) == 1
    assert f"in 0.02 minutes on two CPU cores: {steps.pop()}." in kept["protocol"][0]
    last = (tmp_path / "table1.md").read_text().splitlines()[-1].split(" | ")
    psnr = [row["means"]["T2"]["psnr"] for row in rows.values() if row["variant"] == "seran"]
    assert (last[0], last[2]) == ("| + SERAB (SERAN)", "2")
    assert last[3].startswith(f"{sum(psnr) / 2:.2f} ± {abs(psnr[0] - psnr[1]) / 2:.2f} ")
    made("expected", "--folder", tmp_path)
    text = (tmp_path / "EXPECTED.md").read_text()
    assert "| seran | +0.85 | – | +0.84 | – | +1.30 | " in text
    assert "Not made yet: see `paper/table2.py`." in text


def test_a_table_says_what_it_needs(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line: no such folder, another folder, a set without a split or a scale."""
    monkeypatch.syspath_prepend(str(PAPER))
    import results

    (tmp_path / "empty").mkdir()
    lacking = tmp_path / "lacking"
    shutil.copytree(pairs, lacking)
    manifest = json.loads((lacking / "manifest.json").read_text())
    manifest["volumes"] = [v for v in manifest["volumes"] if v["split"] != "val"]
    (lacking / "manifest.json").write_text(json.dumps(manifest))
    splits = ("train", "val", "test")
    for data, scale, why in (
        (tmp_path / "none", 2, "it is not there"),
        (tmp_path / "empty", 2, "it has no manifest.json"),
        (lacking, 2, "it has no scan of the split val"),
        (pairs, 3, "it was prepared without x3"),
    ):
        with pytest.raises(results.BadInput) as error:
            results.needed(data, scale, splits)
        need = (
            f"expected a set made by `seran prepare` (bicubic, x{scale}) with scans of the splits train, val"
        )
        assert str(error.value).startswith(
            f"--data {data}: {need}, test; {why}; make one: seran prepare open"
        )
    assert len(results.needed(pairs, 2, splits).volumes) == 3


@pytest.mark.slow
@pytest.mark.parametrize("program", ["table1", "table2", "table3"])
def test_a_table_says_so_before_any_work(program: str, tmp_path: Path) -> None:
    done = run(program, "--data", tmp_path / "none", "--runs", tmp_path / "runs", "--out", tmp_path)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"{program}.py: --data {tmp_path / 'none'}: expected a set made by")
    assert not [*tmp_path.iterdir()]


def test_the_folder_of_the_results_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every program, and before the work, so that none of it is lost."""
    monkeypatch.syspath_prepend(str(PAPER))
    import results

    path = tmp_path / "mine" / "of today" / "table3-x2.json"
    assert results.load(path, []) == {}
    assert path.parent.is_dir()
    other = tmp_path / "other" / "lesions.json"
    results.write(other, ["said"], {"a": {}}, lambda rows: [*rows])
    assert results.load(other, ["said"]) == {"a": {}}
    made("expected", "--out", tmp_path / "expected" / "new")
    text = (PAPER / "EXPECTED.md").read_text()
    assert (tmp_path / "expected" / "new" / "EXPECTED.md").read_text() == text
    made("tradeoff", "--out", tmp_path / "drawn" / "t.png")
    assert (tmp_path / "drawn" / "t.png").is_file()
    for program in PAPER.glob("*.py"):
        text = program.read_text()
        if '__name__ == "__main__"' in text and re.search(r"^(def \w+\(.*|    )out: ", text, re.MULTILINE):
            assert re.search(r"\bload\(|\bplaced\(|out.*mkdir\(", text), program


def test_the_page_names_every_program() -> None:
    """And nothing else; its commands take what it says that they take."""
    page = (PAPER / "README.md").read_text()
    programs = {p.name for p in PAPER.glob("*.py") if '__name__ == "__main__"' in p.read_text()}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)) == programs
    others = {p.stem for p in PAPER.glob("*.py")} - {name[:-3] for name in programs}
    assert set(re.findall(r"`(\w+)`", page.rpartition("of their own:")[2])) == others


@pytest.mark.slow
@pytest.mark.parametrize("program", ["table1", "table2"])
def test_ablations_say_what_they_take(program: str) -> None:
    text = made(program, "--help")
    assert "--budget FLOAT" in text
    assert "--titles" not in text


@pytest.mark.slow
def test_table4_times_in_turn_and_keeps_what_is_there(tmp_path: Path) -> None:
    options = ["--systems", "bicubic", "srcnn", "srcnn+", "--repeats", "2", "--machine", "here"]
    made("table4", *options, "--out", tmp_path, "--scales", "4")
    first = json.loads((tmp_path / "table4.json").read_text())["results"]
    made("table4", *options, "--out", tmp_path, "--scales", "3", "4")
    rows = json.loads((tmp_path / "table4.json").read_text())["results"]
    assert list(rows) == ["bicubic", "srcnn", "srcnn+"]
    for name, row in rows.items():
        assert row["x4"] == first[name]["x4"]
        assert len(row["x3"]) == 2
    assert min(rows["srcnn+"]["x4"]) > 2 * min(rows["srcnn"]["x4"])


@pytest.mark.slow
def test_figures_show_a_slice_and_its_primitives(pairs: Path, tmp_path: Path) -> None:
    made("figures", "--out", tmp_path, "--methods", "bicubic", "seran")
    for name in ("comparison", "primitives", "reasoning"):
        image = matplotlib.image.imread(tmp_path / f"{name}-x2.png")
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.1
    made("figures", "--out", tmp_path / "b", "--data", pairs, "--volume", "2.nii", "--methods", "bicubic")
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["comparison-x2.png"]
    bad = run("figures", "--out", tmp_path / "c", "--data", pairs, "--volume", "nobody")
    assert bad.returncode == 2
    assert "expected --volume to name one test volume of 2.nii.gz" in bad.stderr


@pytest.mark.slow
def test_cards_have_intervals_over_subjects_and_pictures_of_failures(tmp_path: Path) -> None:
    lines = ["split,path,contrast,subject"]
    for i, subject in enumerate(("a", "b", "b", "c", "c2", "c3", "c4", "d")):
        save(tmp_path / f"{i}.nii.gz", phantom((118, 106, 5), i))
        lines.append(f"test,{i}.nii.gz,{'T2' if subject < 'd' else 'PD'},{subject}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    prepare.prepare(
        tmp_path / "list.csv", tmp_path / "set", prepare.PrepareOptions(scales=(2,)), lambda _: None
    )
    (tmp_path / "own").mkdir()  # the evidence is written into the files
    own = Path(shutil.copy(weights.shipped()["srcnn-x2-bd"], tmp_path / "own"))
    made("cards", "--data", tmp_path / "set", "--out", tmp_path / "cards", "--folder", own.parent)
    before, after = weights.read(weights.shipped()["srcnn-x2-bd"]), weights.read(own)
    assert (after.digest, after.card) == (before.digest, before.card)
    assert set(after.evidence.scores) == {"T2", "PD"}
    assert set(before.evidence.scores) >= {"T1", "T2", "PD"}
    text = (tmp_path / "cards" / "srcnn-x2-bd.md").read_text()
    rows = json.loads((tmp_path / "cards" / "srcnn-x2-bd.json").read_text())["rows"]
    mine = {r["volume"]: r["psnr"] for r in rows if r["method"] == "srcnn"}
    row = next(line for line in text.splitlines() if line.startswith("| T2 | 7 (6) |"))
    mean, low, high = (float(x) for x in re.findall(r"[\d.]+", row.split("|")[4]))
    values = [mine[v] for v in "0123456"]
    assert mean == pytest.approx(np.mean(values), abs=0.01)
    assert min(values) - 0.01 <= low < mean < high <= max(values) + 0.01
    assert "[" not in next(line for line in text.splitlines() if line.startswith("| PD | 1 (1) |"))
    for needed in ("Not for diagnosis", "noise of 5%", "command: `python paper/table3.py", "CC0"):
        assert needed in text
    assert matplotlib.image.imread(tmp_path / "cards" / "srcnn-x2-bd.png")[..., :3].std() > 0.1


def test_calibration_finds_the_protocol_that_made_the_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(PAPER))
    import calibrate

    sets = []
    for i, contrast in enumerate(("PD", "T1", "T2")):
        data = phantom((60, 52, 11), i) * (1 + i)
        data[:, :, 3] *= 0.2
        lines = ["split,path,contrast,subject", f"test,{contrast}.nii.gz,{contrast},s"]
        nib.save(
            nib.Nifti1Image(data.astype(np.int16) + np.int16(40), oblique()), tmp_path / f"{contrast}.nii.gz"
        )
        (tmp_path / f"{contrast}.csv").write_text("\n".join(lines))
        prepare.prepare(
            tmp_path / f"{contrast}.csv",
            tmp_path / contrast,
            prepare.PrepareOptions(integer=True),
            lambda _: None,
        )
        sets.append(tmp_path / contrast)

    # What the paper would have printed, had it used slices, their own maxima, rounding and a 2-D window.
    printed: dict[int, dict[str, tuple[str, ...]]] = {2: {}, 3: {}, 4: {}}
    for scale, rows in printed.items():
        cells = []
        for folder in sets:
            kept = load_prepared(folder)
            high = np.asarray(kept.high(kept.volumes[0]), np.float32)
            low = np.asarray(kept.low(kept.volumes[0], scale), np.float32)
            test = np.maximum(np.round(bicubic(scale)(low)), 0)
            slices = [metrics.psnr(a, b, float(a.max())) for a, b in zip(high, test, strict=True)]
            psnr = np.mean([one for one in slices if np.isfinite(one)])  # some are empty
            cells.append(f"{psnr:.2f} / {metrics.scores(high, test, float(high.max()))['ssim_slice']:.4f}")
        rows["bicubic"] = tuple(cells)
    monkeypatch.setattr(calibrate, "TABLE3", printed)
    calibrate.main(tuple(sets), out=tmp_path)
    best = capsys.readouterr().out.splitlines()
    assert best[0].startswith("PSNR of slices, max of the slice, no pixels left out, rounded: rms 0.00")
    assert best[1].startswith("SSIM 2-D, Gaussian, max of the volume, whole map, rounded: rms 0.0000")
    table = (tmp_path / "calibration.md").read_text()
    assert f"| **printed PSNR** | | {printed[2]['bicubic'][0].split(' / ')[0]} | " in table


def test_expected_is_what_the_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PAPER))
    import expected

    assert (PAPER / "EXPECTED.md").read_text() == expected.text(PAPER), "run `python paper/expected.py`"


@pytest.mark.slow
def test_the_tradeoff_is_drawn_from_the_cards_and_table3(tmp_path: Path) -> None:
    made("tradeoff", "--out", tmp_path / "t.png")
    drawn = matplotlib.image.imread(tmp_path / "t.png")
    assert drawn.shape == matplotlib.image.imread(PAPER.parent / "docs" / "tradeoff.png").shape
    (tmp_path / "cards").mkdir()
    row = {"name": "a", "contrast": "T2", "psnr": 30.0, "method": "bicubic"}
    card = {"baseline": "bicubic", "rows": [row, {**row, "psnr": 39.0, "method": "seran"}]}
    (tmp_path / "cards" / "seran-x2-bd.json").write_text(json.dumps(card))
    made("tradeoff", "--cards", tmp_path / "cards", "--out", tmp_path / "other.png")
    other = matplotlib.image.imread(tmp_path / "other.png")
    half = drawn.shape[1] // 2
    assert not np.array_equal(other[:, :half], drawn[:, :half])  # the shipped weights changed
