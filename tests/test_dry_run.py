"""``--dry-run``: what a run would do is what it then does; nothing is written, and no voxel is read."""

import builtins
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from seran import __version__, cli, files, io
from tests.test_bids import raw, run, save  # noqa: F401
from tests.test_resume import overwrite


@pytest.fixture
def cohort(raw: Path, tmp_path: Path) -> Path:  # noqa: F811
    """A data set with scans in every state; their derivatives."""
    out = tmp_path / "out"
    for i, label in enumerate(("cut", "touched", "changed", "mine", "told", "other"), 10):
        save(raw / f"sub-{label}" / "anat" / f"sub-{label}_T2w.nii.gz", i)
    assert run(raw, out, "participant") == 0
    (raw / "sub-01" / "ses-b" / "anat" / "sub-01_ses-b_T1w.nii").unlink()
    made = {label: next((out / f"sub-{label}").rglob("*.nii.gz")) for label in ("cut", "mine", "other")}
    os.truncate(made["cut"], 100)
    os.utime(raw / "sub-touched" / "anat" / "sub-touched_T2w.nii.gz")
    save(raw / "sub-changed" / "anat" / "sub-changed_T2w.nii.gz", 99)
    made["mine"].with_name(made["mine"].name.replace(".nii.gz", ".json")).unlink()
    (raw / "sub-told" / "anat" / "sub-told_T2w.json").write_text('{"EchoTime": "fast"}')
    shutil.rmtree(out / "sub-told")
    text = made["other"].with_name(made["other"].name.replace(".nii.gz", ".json"))
    text.write_text(text.read_text().replace('"Version": "', '"Version": "0.0.'))
    stated = json.loads(text.read_text())
    text.write_text(json.dumps({**stated, "Key": "0" * 64}))
    save(raw / "sub-new" / "anat" / "sub-new_T2w.nii.gz", 40)
    save(raw / "sub-new" / "anat" / "sub-new_acq-iso0.8_T2w.nii.gz", 41)
    return out


def everything(*folders: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for folder in folders for p in folder.rglob("*")}


def test_of_a_data_set(
    raw: Path, cohort: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """Each scan in its state, with the reason; a name that is not quite right; exit status 0."""
    before, opened = everything(raw, cohort), []
    with monkeypatch.context() as patch:
        known = builtins.open
        noted = lambda path, *how, **more: opened.append(path) or known(path, *how, **more)  # noqa: E731
        patch.setattr(builtins, "open", noted)
        patch.setattr(files, "sha256_of", lambda paths: opened.append(paths))
        patch.setattr(io, "read_series", lambda path, *_, **__: opened.append(path))
        capsys.readouterr()
        assert run(raw, cohort, "participant", "--dry-run") == 0
    assert not [path for path in opened if str(path).endswith((".nii", ".nii.gz"))]
    assert everything(raw, cohort) == before
    shown = capsys.readouterr()
    assert "1 image of other suffixes were not asked for" in shown.err
    *lines, last = shown.out.splitlines()
    told = {line.partition("sub-")[2].partition("/")[0]: line for line in lines if "iso0.8" not in line}
    end = f"sub-new_T2w.nii.gz -> {cohort}/sub-new/anat/sub-new_res-x2_desc-bicubic_T2w.nii.gz"
    assert told["new"] == f"make: {raw}/sub-new/anat/{end}"
    assert told["02"].startswith("there: ")
    assert told["cut"].endswith("(its result is not whole)")
    assert told["other"].endswith(f"(it was made by seran 0.0.{__version__})")
    for label in ("touched", "changed"):
        why = (
            "size or time of the scan or the result is not as recorded: made again if their bytes are others"
        )
        assert told[label].startswith("compare: ")
        assert told[label].endswith(f"({why})")
    assert told["told"].startswith(f"skip: {raw}/sub-told/anat/sub-told_T2w.nii.gz (its JSON files say ")
    assert "no record beside it says that seran made it; remove it, or give --force" in told["mine"]
    [odd] = [line for line in lines if "iso0.8" in line]
    assert odd.startswith("skip: ")
    assert "expected a name like" in odd
    counts = "1 to make, 2 to make again, 3 there already, 2 to compare, 3 to skip"
    assert last == f"{counts}; nothing was done (--dry-run)"
    assert run(raw, cohort, "participant") == 1
    assert "4 sharpened, 4 there already, 3 failed" in capsys.readouterr().err


def test_with_options(
    raw: Path, cohort: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """Of one participant, by force, verified, elsewhere; a part of them; as events for programs."""
    one = ("participant", "--participant-label", "02", "--dry-run")
    for words, said in (
        ((), "there"),
        (("--force",), "again"),
        (("--verify",), "compare"),
        (("--scale", "3"), "make"),
        (("--cluster", "local", "--force"), "there"),
    ):
        capsys.readouterr()
        assert run(raw, cohort, *one, *words, "--json") == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        [plan] = [event for event in events if event["event"] == "plan"]
        assert plan["status"] == said, words
        assert plan["scan"].endswith("sub-02_FLAIR.nii.gz")
        assert plan["result"].startswith(str(cohort))
    assert run(raw, tmp_path / "else", "participant", "--part", "1/4", "--dry-run") == 0
    assert "3 to make, 0 to make again" in capsys.readouterr().out
    assert not (tmp_path / "else").exists()
    for words, why in (
        (("group", "--dry-run"), "--dry-run: is for participant"),
        (
            ("participant", "--cluster", "sbatch", "--dry-run"),
            "--dry-run: --cluster sbatch only prints a script",
        ),
    ):
        assert run(raw, cohort, *words) == 2
        assert why in capsys.readouterr().err


def test_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], stub: Path) -> None:
    """Without --resume a result that is there is in the way; a list of pages is not begun."""
    for i in range(2):
        save(tmp_path / "in" / f"{i}.nii.gz", i)
    words: list[Any] = ["upscale", tmp_path / "in", tmp_path / "out", "--method", "bicubic"]
    assert cli.run([str(word) for word in words]) == 0
    overwrite(tmp_path / "in" / "0.nii.gz", bytes((tmp_path / "in" / "0.nii.gz").stat().st_size))
    page = tmp_path / "all.html"
    for more, counts in (
        (["--resume"], {"there": 2}),
        ([], {"skip": 2}),
        (["--report", page, "--force"], {"again": 2}),
    ):
        capsys.readouterr()
        assert cli.run([str(word) for word in (*words, *more, "--dry-run")]) == 0
        lines = capsys.readouterr().out.splitlines()[:-1]
        assert Counter(line.partition(":")[0] for line in lines) == counts
        if "skip" in counts:
            assert lines[0].endswith("0.nii.gz exists; give --force to replace it)")
    assert not page.exists()
    single = ("upscale", tmp_path / "in" / "0.nii.gz", tmp_path / "o.nii", "--dry-run")
    assert cli.run([str(word) for word in single]) == 2
    assert "--dry-run are for several scans" in capsys.readouterr().err
