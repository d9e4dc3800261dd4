"""Records: what was asked and what was run, the checks' verdict; nothing from a file is trusted."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import cli, files, methods, weights
from seran.engines import Engine
from seran.errors import BadInput
from seran.job import record, resume, run
from seran.job.options import Options, ReadOptions, Scanner, Target
from seran.job.record import Record
from seran.sharpen import Normalisation
from seran.uncertainty import Calibration, Widths
from tests.conftest import oblique, phantom

CHECKS = {
    "geometry",
    "intensities",
    "residual",
    "consistency",
    "noise",
    "overshoot",
    "signal",
    "familiar",
    "added",
    "resolution",
}


def keyed(source: Path, options: Options = Options(), engine: Engine = Engine()) -> str:  # noqa: B008
    return resume.key(files.sha256(source), options, engine)


@pytest.mark.slow
def test_the_key_depends_on_all_that_decides(scan: Path, tmp_path: Path) -> None:
    plain = keyed(scan)
    other = [
        Options("bicubic"), Options(ensemble=True), Options(dtype="int16"),
        Options(target=Target(spacing=0.5)),
        Options(target=Target(like=scan)), Options(read=ReadOptions(fill=0)),
        Options("seran", weights.shipped()["seran-x3-bd"]), Options(scanner=Scanner("bicubic")),
        Options(scanner=Scanner(noise="off")), Options(scanner=Scanner(acquired=(0.5, 1.0))),
    ]  # fmt: skip
    engines = [Engine(precision="f32"), Engine(precision="int8"), Engine(device="cuda")]
    keys = {plain, *(keyed(scan, o) for o in other), *(keyed(scan, engine=e) for e in engines)}
    assert len(keys) == 1 + len(other) + len(engines)
    assert keyed(scan, engine=Engine(threads=1)) == plain  # they decide when it is there, not what
    moved = tmp_path / "moved.nii.gz"
    shutil.copy(scan, moved)
    assert keyed(moved) == plain


def test_evidence_that_grows_leaves_results_valid(scan: Path, tmp_path: Path) -> None:
    """What was measured of the same weights changes no voxel, but for the bounds that 8 bits need."""
    own = tmp_path / "own.onnx"
    shutil.copy(weights.shipped()["vdsr-x2-bd"], own)
    held, options = weights.read(own), Options(weights=own)
    before = [keyed(scan, options, Engine(precision=p)) for p in ("auto", "int8")]  # type: ignore[arg-type]
    grown = replace(held.evidence, scores={"T9": {"psnr": 40.0}}, ranges={"layer": [0.0, 1.0]})
    own.write_bytes(weights.with_evidence(held.data, grown))
    after = [keyed(scan, options, Engine(precision=p)) for p in ("auto", "int8")]  # type: ignore[arg-type]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


@pytest.mark.slow
def test_a_result_of_another_engine_is_not_there_already(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An int8 result is no float32 one; what was asked for and what was run are both stated."""
    out = tmp_path / "out.nii.gz"
    command = ["upscale", str(scan), str(out), "--acquisition", "bicubic", "--strict", "off", "--resume"]
    command.append("--precision")
    for precision in ("int8", "f32"):
        assert cli.run([*command, precision]) == 0
        assert "there already" not in capsys.readouterr().out
        found = record.read(out)
        assert found is not None
        assert found.precision == found.requested_engine["precision"] == precision
    assert cli.run([*command, "f32"]) == 0
    assert "there already" in capsys.readouterr().out
    assert cli.run([*command, "auto"]) == 0
    found = record.read(out)
    assert found is not None
    assert found.requested_engine["precision"] == "auto"
    assert found.precision in ("bf16", "f32")


@pytest.mark.slow
def test_weights_that_are_overwritten_are_loaded_anew(scan: Path, tmp_path: Path) -> None:
    """In a living process: other voxels, another grid, another digest in the record."""
    own, made = tmp_path / "own.onnx", []
    for i, name in enumerate(("seran-x2-bd", "seran-x2-td", "seran-x2-bd")):
        shutil.copy(weights.shipped()[name], own)
        out = tmp_path / f"{i}.nii.gz"
        assert cli.run(["upscale", str(scan), str(out), "--weights", str(own), "--strict", "off"]) == 0
        found = record.read(out)
        assert found is not None
        assert found.degradation == name[-2:]
        assert found.weights_sha256 == weights.read(own).digest
        made.append(nib.load(out))
    assert not np.allclose(made[0].affine, made[1].affine)
    assert np.abs(made[0].get_fdata() - made[1].get_fdata()).max() > 1
    np.testing.assert_array_equal(made[0].get_fdata(), made[2].get_fdata())


@pytest.mark.parametrize(("dtype", "verdict"), [("float32", "not known"), ("uint8", "FAIL")])
def test_the_verdict_is_of_what_was_written(
    tmp_path: Path, dtype: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held at 255, another scan; of a series the worst volume counts. There is no noise to compare."""
    monkeypatch.setattr("seran.io.voxels.refuse_lossy", lambda volume, dtype: None)
    smooth = gaussian_filter(phantom((26, 34, 5)), (2, 2, 0))
    data = np.stack([np.zeros((26, 34, 5)), 40 * smooth, smooth / 9], -1)
    nib.save(nib.Nifti1Image(data.astype(np.float32), oblique()), tmp_path / "in.nii")
    out = tmp_path / "out.nii"
    args = ["upscale", str(tmp_path / "in.nii"), str(out), "--method", "bicubic", "--dtype", dtype]
    assert cli.run([*args, "--volume", "1"]) == (verdict == "FAIL")
    found = record.read(out)
    assert found is not None
    assert found.verdict == verdict
    assert {check.name for check in found.checks} == CHECKS
    assert cli.run([*args, "--force"]) == (verdict == "FAIL")
    found = record.read(out)
    assert found is not None
    assert found.verdict == ("FAIL" if verdict == "FAIL" else "WARN")  # the first volume is empty
    assert json.loads((tmp_path / "out.json").read_text())["Verdict"] == found.verdict


def test_a_record_is_read_as_it_was_written(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    assert cli.run(["upscale", str(scan), str(out), "--scale", "2.6"]) == 0
    found = record.read(out)
    assert found is not None
    stated = json.loads((tmp_path / "out.json").read_text())
    assert json.loads(json.dumps(found.stated())) == stated
    assert repr(found) == f"Record(seran, seran-native.onnx in {found.precision}, x3, {found.verdict})"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Scale", "x"), ("Scale", 9), ("SliceAxis", 7), ("Degradation", "<b>"), ("Checks", [{}]),
        ("Checks", 3), ("Seconds", "soon"), ("Method", None), ("ShapeBefore", "26"), ("Software", "another"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_none(scan: Path, tmp_path: Path, name: str, value: object) -> None:
    out = tmp_path / "out.nii.gz"
    assert cli.run(["upscale", str(scan), str(out), "--method", "bicubic"]) == 0
    stated = json.loads((tmp_path / "out.json").read_text())
    for changed in ({**stated, name: value}, {k: v for k, v in stated.items() if k != "Degradation"}, [], 7):
        (tmp_path / "out.json").write_text(json.dumps(changed))
        assert record.read(out) is None
    (tmp_path / "out.json").write_text(json.dumps(stated))
    assert isinstance(record.read(out), Record)
    out.unlink()
    assert record.read(out) is None


def test_a_record_is_of_the_very_bytes_beside_it(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result that is cut has none; one that is changed is made again where work would be left out."""
    out = tmp_path / "out.nii"
    command = ["upscale", str(scan), str(out), "--method", "bicubic", "--resume"]
    assert cli.run(command) == 0
    whole = out.read_bytes()
    found = record.read(out)
    assert found is not None
    assert (found.result_bytes, found.result_sha256) == ((len(whole),), (files.sha256(out),))
    for wrong, known in ((whole[:1000], False), (whole[:-1] + b"?", True)):
        out.write_bytes(wrong)
        assert (record.read(out) is not None) == known
        capsys.readouterr()
        assert cli.run(command) == 0
        assert "there already" not in capsys.readouterr().out
        assert out.read_bytes() == whole
    assert cli.run(command) == 0
    assert "there already" in capsys.readouterr().out


def test_a_run_writes_image_and_half_widths_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files and one record, of each volume of a series; a volume that fails leaves nothing."""
    data = np.stack([phantom((26, 34, 5), t) * (1 + t) for t in range(2)], -1)
    nib.save(nib.Nifti1Image(data, oblique()), tmp_path / "in.nii.gz")
    last, seen = 2, 0

    def predict(x: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += 1
        if seen > last:
            raise BadInput("no more")
        return np.full((len(x), *x.shape[2:]), np.log(0.1), np.float32)

    endings = {f"x{k} other": Calibration(1.0, 2.0, 0.2, 20) for k in (1, 2, 3, 4)}
    monkeypatch.setattr(methods, "widths", lambda *_: Widths(predict, endings))
    options = Options(uncertainty=True, scanner=Scanner(background="off"))
    made = run.run(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", options)
    image, half = nib.load(tmp_path / "out.nii.gz"), nib.load(tmp_path / "out_uncertainty.nii.gz")
    assert image.shape == half.shape == (52, 68, 5, 2)
    np.testing.assert_array_equal(image.affine, half.affine)
    assert made.volumes == 2
    assert made == record.read(tmp_path / "out.nii.gz")
    assert len(made.result_bytes) == 2
    assert made.half_width == pytest.approx(0.1, abs=1e-4)
    assert made.psnr_bound == pytest.approx(22.0, abs=1e-3)
    for t in range(2):  # a tenth of the range that each volume was normalised by
        gain = Normalisation.of(np.moveaxis(data[..., t], 2, 0)).gain
        np.testing.assert_allclose(half.get_fdata()[..., t], gain / 10, rtol=1e-5)
    (tmp_path / "out.nii.gz").unlink()
    (tmp_path / "out.json").unlink()
    with pytest.raises(BadInput, match=r"out_uncertainty\.nii\.gz exists; give --force"):
        run.run(tmp_path / "in.nii.gz", tmp_path / "out.nii.gz", options)
    seen, last = 0, 1
    with pytest.raises(BadInput, match="no more"):
        run.run(tmp_path / "in.nii.gz", tmp_path / "other.nii.gz", options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.nii.gz", "out_uncertainty.nii.gz"]


ODD = (
    [],
    "",
    "x",
    -1,
    [1],
    [0, 0],
    [0, 0, 0],
    [-1.5, 2, 3],
    [1.0, 2.0, 3.0, 4.0, 5.0],
    {},
    [math.nan] * 3,
    10**400,
)


def test_a_record_with_what_cannot_be_is_told_of_in_a_line(
    scan: Path, tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short lists, other types, numbers that are none: the record is used as a whole, or not at all."""
    out, page = tmp_path / "out.nii.gz", tmp_path / "page.html"
    words = ["upscale", str(scan), str(out), "--method", "bicubic", "--strict", "off"]
    assert cli.run(words) == 0
    beside = record.sidecar(out)
    stated = json.loads(beside.read_text())
    for name, value in itertools.product(stated, ODD):
        beside.write_text(json.dumps({**stated, name: value}))
        made, why = record.read(out), record.fault(out)
        if name != "Software":
            assert (made is None) == bool(why), (name, value)
        assert "\n" not in why
        if made is not None:
            json.dumps(made.stated(), allow_nan=False)
            assert made.summary(out)
            assert made.provenance
            assert made.more_slices > 0
    beside.write_text(json.dumps({**stated, "KspaceSupport": []}))
    why = "its record, out.json, cannot be used (KspaceSupport: expected 2 numbers above 0, got [])"
    assert record.fault(out) == why
    capsys.readouterr()
    assert cli.run(["compare", str(scan), str(out), str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["Notes"][0] == f"out.nii.gz: {why}; so how it was made is not known."
    assert cli.run(["info", str(out)]) == 0
    assert why in capsys.readouterr().out
    again = tmp_path / "again.nii.gz"
    assert cli.run(["upscale", str(out), str(again), *words[3:]]) == 0
    told = capsys.readouterr().err
    assert told == f"seran: {out}: {why}, so whether seran made it is not known\n"
    assert cli.run([*words, "--resume"]) == 0
    assert "there already" not in capsys.readouterr().out, "it is made anew"
    assert json.loads(beside.read_text())["KspaceSupport"] == [1.0, 1.0]


def test_a_record_beside_voxels_in_a_file_of_their_own(tmp_path: Path) -> None:
    """A header with the voxels beside it is no result, whatever lies there."""
    text = "NDims = 3\nDimSize = 26 34 5\nElementType = MET_FLOAT\nElementDataFile = in.raw\n"
    (tmp_path / "in.mhd").write_text(text)
    (tmp_path / "in.raw").write_bytes(phantom((26, 34, 5)).tobytes("F"))
    (tmp_path / "in.json").write_text('{"Software": "seran"}')
    assert (
        cli.run(["upscale", str(tmp_path / "in.mhd"), str(tmp_path / "out.mha"), "--method", "bicubic"]) < 2
    )
