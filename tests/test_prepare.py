import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli
from seran.data import prepare
from seran.data.pairs import SPLITS, load_prepared
from seran.data.prepare import PrepareOptions
from seran.data.sources import Source, find
from seran.degrade import Bicubic, Truncation
from seran.errors import BadInput
from tests.conftest import oblique, phantom

SHAPE = (53, 61, 4)


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, oblique()), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BIDS-like folder: eight subjects with two scans each, and five files that are no scans."""
    root = tmp_path / "raw"
    for i in range(1, 9):
        for suffix in ("T1w", "T2w"):
            save(root / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_{suffix}.nii.gz", phantom(SHAPE, i))
    good = (root / "sub-01" / "anat" / "sub-01_T1w.nii.gz").read_bytes()
    (root / "broken_T1w.nii.gz").write_bytes(good[: len(good) // 2])
    (root / "empty_T1w.nii.gz").write_bytes(b"")
    (root / "notes.txt").write_text("hello")
    save(root / "bold.nii.gz", np.stack([phantom(SHAPE)] * 3, -1))
    save(root / "mask.nii.gz", (phantom(SHAPE) > 50).astype(np.uint8))
    save(root / "ct.nii.gz", phantom(SHAPE) - 1000)
    return root


def test_a_folder(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = prepare.prepare(folder, tmp_path / "set", report=lines.append)
    assert len(made.volumes) == 16
    reasons = {s["source"]: s["reason"] for s in made.skipped}
    assert set(reasons) == {
        "broken_T1w.nii.gz", "empty_T1w.nii.gz", "notes.txt", "bold.nii.gz", "mask.nii.gz", "ct.nii.gz",
    }  # fmt: skip
    assert "a series of 3 volumes" in reasons["bold.nii.gz"]
    assert "mask" in reasons["mask.nii.gz"]
    assert "CT" in reasons["ct.nii.gz"]
    assert len(lines) == 22
    split = {v.subject: v.split for v in made.volumes}
    assert len({(v.subject, v.split) for v in made.volumes}) == 8, "a subject is in one split only"
    assert {split["sub-02"], split["sub-04"], split["sub-03"]} == {"test", "val", "train"}
    assert {v.contrast for v in made.volumes} == {"T1", "T2"}
    on_disk = {p.stem for p in (tmp_path / "set" / "high").iterdir()}
    assert on_disk == {v.name for v in made.volumes}
    assert load_prepared(tmp_path / "set") == load_prepared(str(tmp_path / "set")) == made


@pytest.mark.parametrize(("degradation", "operator"), [("bd", Bicubic), ("td", Truncation)])
@pytest.mark.parametrize("integer", [False, True])
def test_pairs_are_the_degradation_of_the_truth(
    folder: Path, tmp_path: Path, degradation: str, operator: type, integer: bool
) -> None:
    made = prepare.prepare(
        folder / "sub-03", tmp_path / "set", PrepareOptions(degradation, integer=integer), lambda _: None
    )
    volume = made.volumes[0]
    high = made.high(volume)
    assert isinstance(high, np.memmap)
    assert high.shape == volume.shape == (4, 48, 60)
    assert high.dtype == (np.int32 if integer else np.float32)
    for scale in (2, 3, 4):
        expected = operator((scale, scale), integer)(np.asarray(high, np.float32))
        np.testing.assert_allclose(made.low(volume, scale), expected, atol=1.01 if integer else 1e-2)
    assert volume.range == (float(high.min()), float(high.max()))
    np.testing.assert_allclose(volume.spacing, (3.3, 0.9, 0.8), rtol=1e-4)


def noisy() -> np.ndarray:
    """A scan with content up to the edges of k-space."""
    return phantom((160, 144, 6)) + np.random.default_rng(0).normal(0, 5, (160, 144, 6))


def zero_filled(data: np.ndarray) -> np.ndarray:
    """The same without the outer 40 % of k-space along the first axis, which the scanner filled."""
    keep = np.abs(np.fft.fftfreq(len(data))) * 2 <= 0.6
    return np.abs(np.fft.ifft(np.fft.fft(data, axis=0) * keep[:, None, None], axis=0))


def test_zero_filled_scans_are_cropped_to_their_support(tmp_path: Path) -> None:
    save(tmp_path / "raw" / "a_T2w.nii.gz", zero_filled(noisy()).astype(np.float32))
    for crop, rows in ((True, 96), (False, 156)):
        made = prepare.prepare(
            tmp_path / "raw", tmp_path / f"{crop}", PrepareOptions(fourier_crop=crop), lambda _: None
        )
        assert made.volumes[0].band[0] == pytest.approx(0.6, abs=0.03)
        assert made.volumes[0].shape[1] == pytest.approx(rows, abs=5)
        assert made.volumes[0].shape[1] % 12 == 0
    assert load_prepared(tmp_path / "True").volumes[0].spacing[1] == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_zero_filled_training_scans_can_be_packed_twice(tmp_path: Path, split: str) -> None:
    full = noisy()
    sources = [
        Source(save(tmp_path / f"{name}.nii.gz", data.astype(np.float32)), name, "T2", split)
        for name, data in (("filled", zero_filled(full)), ("full", full))
    ]
    made = prepare.prepare(sources, tmp_path / "set", PrepareOptions(also_stored=True), lambda _: None)
    rows = [(v.subject, v.shape[1]) for v in made.volumes]
    assert rows == [("filled", 96), *[("filled", 156)] * (split == "train"), ("full", 156)]
    assert len({v.name for v in made.volumes}) == len(rows)
    assert [made.high(v).shape for v in made.volumes] == [v.shape for v in made.volumes]


def test_a_manifest(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", phantom(SHAPE))
    save(tmp_path / "b.nii.gz", phantom(SHAPE, 1))
    path = tmp_path / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "contrast", "subject", "licence", "sha256"])
        writer.writerow(["val", "a.nii.gz", "PD", "s1", "CC0", ""])
        writer.writerow(["train", "b.nii.gz", "T2", "s2", "CC0", "0" * 64])
        writer.writerow(["train", "c.nii.gz", "T2", "s3", "CC0", ""])
    made = prepare.prepare(path, tmp_path / "set", report=lambda _: None)
    assert [(v.source, v.split, v.contrast, v.licence) for v in made.volumes] == [
        ("a.nii.gz", "val", "PD", "CC0")
    ]
    assert ["sha256" in s["reason"] for s in made.skipped] == [True, False]
    assert "no such file" in made.skipped[1]["reason"]


def test_links_are_followed_and_what_is_lost_is_told(folder: Path, tmp_path: Path) -> None:
    (folder / "sub-03").rename(tmp_path / "elsewhere")
    (folder / "sub-03").symlink_to(tmp_path / "elsewhere")
    (folder / ".git").mkdir()
    (folder / "sub-04" / "anat" / "sub-04_T1w.nii.gz").rename(folder / ".git" / "hidden.nii.gz")
    (folder / "sub-04" / "anat" / "sub-04_T1w.nii.gz").symlink_to("gone")
    made = prepare.prepare(folder, tmp_path / "set", report=lambda _: None)
    assert [v.subject for v in made.volumes].count("sub-03") == 2
    assert len(made.volumes) == 15
    reasons = {s["source"]: s["reason"] for s in made.skipped}
    assert "a link to what is not there" in reasons["sub-04_T1w.nii.gz"]


def test_subjects_of_a_folder_are_never_split(tmp_path: Path) -> None:
    names = [
        *(f"IXI{i:03d}-Guys-08{i}-{c}.nii.gz" for i in range(40) for c in ("T1", "T2", "PD")),
        *(f"patient{i:02d}/study{j}/{c}.nii.gz" for i in range(40) for j in (1, 2) for c in ("T1W", "FLAIR")),
        *(f"case{i}_{c}w.nii" for i in range(40) for c in ("T1", "T2")),
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources = find(tmp_path)
    splits: dict[str, set[str]] = {}
    for source in sources:
        splits.setdefault(source.subject, set()).add(source.split)
    assert len(splits) == 120
    assert all(len(found) == 1 for found in splits.values())
    counts = [sum(found == {s} for found in splits.values()) for s in SPLITS]
    assert counts[0] > 80
    assert min(counts[1:]) > 3
    assert {s.contrast for s in sources} == {"T1", "T2", "PD", "FLAIR"}


def test_scans_of_a_list_that_are_not_there_end_in_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are packed; of a folder, in which anything may lie, what is no scan is told alone."""
    for i in (2, 4):
        save(tmp_path / "raw" / f"{i}.nii.gz", phantom((62, 75, 5), i))
    (tmp_path / "list.csv").write_text(
        "split,path,contrast,subject\ntrain,raw/2.nii.gz,T1,a\ntrain,raw/typo.nii.gz,T1,b\nval,raw/4.nii.gz,T1,c\n"
    )
    assert cli.run(["prepare", str(tmp_path / "list.csv"), str(tmp_path / "set"), "--scales", "2"]) == 1
    said = capsys.readouterr()
    assert "2 volumes (1 train, 1 val, 0 test)" in said.out
    assert "seran: no volume in test: there is nothing to report scores on\n" in said.err
    told = f"seran: 1 scan of the list cannot be used, and {tmp_path / 'set'} is without; first typo.nii.gz: "
    assert told in said.err
    assert len(load_prepared(tmp_path / "set").volumes) == 2
    (tmp_path / "raw" / "notes.txt").write_text("hello")
    assert cli.run(["prepare", str(tmp_path / "raw"), str(tmp_path / "all"), "--scales", "2"]) == 0
    said = capsys.readouterr()
    assert "skipped notes.txt" in said.out
    assert "seran: no volume in val and test: nothing is validated during training" in said.err
    assert "name the splits in a CSV instead" in said.err


def test_a_manifest_that_mixes_a_subject_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("split,path,contrast,subject\ntrain,a.nii,T1,s\ntest,b.nii,T1,s\n")
    with pytest.raises(BadInput, match="subject s is in train and in test"):
        find(tmp_path / "list.csv")


def test_a_damaged_prepared_folder(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}", '{"volumes": [{"name": "a"}]}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(BadInput, match="expected a manifest"):
            load_prepared(tmp_path)


def test_unusable_requests(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match="folder of scans or a CSV"):
        prepare.prepare(tmp_path / "nowhere", tmp_path / "set")
    (tmp_path / "set").mkdir()
    with pytest.raises(BadInput, match="exists"):
        prepare.prepare(folder, tmp_path / "set")
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadInput, match="no usable scan"):
        prepare.prepare(tmp_path / "bare", tmp_path / "set2", report=lambda _: None)
    (tmp_path / "list.csv").write_text("path,split\na,b\n")
    with pytest.raises(BadInput, match="columns"):
        prepare.prepare(tmp_path / "list.csv", tmp_path / "set2")
    with pytest.raises(BadInput, match=r"manifest\.json"):
        load_prepared(tmp_path / "bare")
    with pytest.raises(BadInput, match="--degradation blur: expected bd or td"):
        PrepareOptions("blur")
    with pytest.raises(BadInput, match="--scales 2 5: expected 2, 3 or 4"):
        PrepareOptions(scales=(2, 5))
    assert not list(tmp_path.glob(".part-*"))
    assert not (tmp_path / "set2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_preparation_does_not_count(folder: Path, tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "seran.cli", "prepare", str(folder), str(tmp_path / "set")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".part-*/*/high/*.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.communicate()
    assert not (tmp_path / "set").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert not list(tmp_path.glob(".part-*"))
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert len(json.loads((tmp_path / "set" / "manifest.json").read_text())["volumes"]) == 16
    assert not list(tmp_path.glob(".part-*"))


def test_real_volumes(shared: Path, tmp_path: Path) -> None:
    """A zero-filled test scan and a full one through the manifest's own rows."""
    rows = list(csv.reader((shared / "MANIFEST.csv").read_text().splitlines()))
    wanted = [r for r in rows[1:] if "adi_T2w_part2" in r[1] or "6692_T1.nii" in r[1]]
    for row in wanted:
        row[1] = str(shared / row[1])
    path = tmp_path / "list.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *wanted])
    made = prepare.prepare(path, tmp_path / "set", PrepareOptions(scales=(2,)), lambda _: None)
    assert not made.skipped
    assert {v.shape for v in made.volumes} == {(21, 252, 504), (26, 228, 216)}


def test_a_set_that_is_cut_or_lies_is_one_line(tmp_path: Path) -> None:
    """Manifest and stacks: empty, cut, of other things, nested without end, leading elsewhere."""
    save(tmp_path / "raw" / "a.nii.gz", phantom((62, 75, 5), 0))
    made = prepare.prepare(
        tmp_path / "raw", tmp_path / "set", PrepareOptions(scales=(2,)), report=lambda _: None
    )
    [volume] = made.volumes
    manifest = tmp_path / "set" / "manifest.json"
    whole = json.loads(manifest.read_text())
    first = whole["volumes"][0]
    lies = [
        {"name": "../../raw/a"}, {"shape": [5, 60]}, {"shape": [5, 60, -72]}, {"split": "all"},
        {"unit": {"2": [1]}}, {"unit": []}, {"range": [0, "1"]}, {"range": [0, float("nan")]},
        {"colour": "blue"}, {"subject": None},
    ]  # fmt: skip
    texts = ["", "{", "[]", '{"a":' * 100_000, "\xff", json.dumps({**whole, "volumes": 3})]
    for text in [*texts, *(json.dumps({**whole, "volumes": [{**first, **lie}]}) for lie in lies)]:
        manifest.write_bytes(text.encode("latin-1"))
        with pytest.raises(BadInput, match=r"manifest\.json: expected a manifest of `seran prepare`"):
            load_prepared(tmp_path / "set")
    manifest.write_bytes(b"\xef\xbb\xbf" + json.dumps(whole).encode())
    assert load_prepared(tmp_path / "set") == made
    for path, read in (
        (made.file(volume.name), lambda: made.high(volume)),
        (made.file(volume.name, 2), lambda: made.low(volume, 2)),
    ):
        stack = path.read_bytes()
        for content in (b"", stack[:50], stack[:-1], b"PK" + stack, stack.replace(b"<f4", b"<i4", 1)):
            path.write_bytes(content)
            with pytest.raises(BadInput, match=r"\.npy: the manifest promises .* of float32, got"):
                read()
        path.unlink()
        with pytest.raises(BadInput, match="No such file"):
            read()
