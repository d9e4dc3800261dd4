"""What other programs make of a prepared set: written, matched by name and place, scored, or refused."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
from nibabel import affines, orientations
from onnx import TensorProto, helper, numpy_helper

from seran import cli, evaluate, grid, io
from seran.data import prepare
from seran.data.pairs import PreparedSet, load_prepared
from seran.methods import method
from seran.quality import metrics
from seran.volume import Volume
from tests.conftest import oblique, phantom, shifted


@pytest.fixture(scope="module", params=["bd", "td"])
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Oblique scans whose slices lie along another array axis each, of sizes that are cropped."""
    root = tmp_path_factory.mktemp("exchange")
    lines = ["split,path,contrast,subject"]
    for i, split in enumerate(("test", "test", "test", "val")):
        data = np.moveaxis(phantom((62, 75, 7), i), 2, i % 3)
        spacing = np.insert((0.9, 0.8), i % 3, 3.3)
        nib.save(nib.Nifti1Image(data, oblique(tuple(spacing.tolist()), i == 1)), root / f"{i}.nii.gz")
        lines.append(f"{split},{i}.nii.gz,T2,s{i}")
    (root / "list.csv").write_text("\n".join(lines))
    options = prepare.PrepareOptions(scales=(2, 3), degradation=request.param, fourier_crop=False)
    prepare.prepare(root / "list.csv", root / "set", options, report=lambda _: None)
    return load_prepared(root / "set")


@pytest.fixture
def truths(pairs: PreparedSet, tmp_path: Path) -> Path:
    """The truth as another program would write it."""
    folder = tmp_path / "other"
    assert cli.run(["prepare", "to-nifti", str(pairs.root), str(folder), "--scale", "1"]) == 0
    return folder


def baseline(pairs: PreparedSet, scale: int = 2) -> evaluate.Method:
    return method("bicubic" if pairs.degradation == "bd" else "zerofill", scale)


def scored(pairs: PreparedSet, folder: Path, **options: object) -> dict[str, dict[str, float]]:
    report = evaluate.evaluate(pairs, [baseline(pairs)], predictions=[folder], **options)
    return {r["name"]: r for r in report.rows if r["method"] == folder.name}


def refused(pairs: PreparedSet, capsys: pytest.CaptureFixture[str], *more: object) -> str:
    plain = baseline(pairs).name
    assert cli.run(["evaluate", str(pairs.root), "--methods", plain, *map(str, more)]) == 2
    return capsys.readouterr().err


def test_images_lie_where_the_scans_lie(pairs: PreparedSet, truths: Path, tmp_path: Path) -> None:
    """Every voxel of the truth is found in the scan at its millimetres; low ones by the anchor."""
    for volume in pairs.pick("test"):
        scan = nib.load(pairs.root.parent / volume.source)
        made = nib.load(truths / f"{volume.name}.nii.gz")
        at = affines.apply_affine(np.linalg.inv(scan.affine) @ made.affine, np.indices(made.shape).T).T
        nearest = np.rint(at).astype(int)
        assert np.abs(at - nearest).max() < 1e-3
        np.testing.assert_array_equal(made.get_fdata(), scan.get_fdata()[tuple(nearest)])
    low = tmp_path / "low"
    assert cli.run(["prepare", "to-nifti", str(pairs.root), str(low), "--scale", "3"]) == 0
    for volume in pairs.pick("test"):
        fine, coarse = (io.read(f / f"{volume.name}.nii.gz") for f in (truths, low))
        np.testing.assert_allclose(
            grid.spacing(coarse.affine) / grid.spacing(fine.affine), [3, 3, 1], rtol=1e-5
        )
        anchor = "corner" if pairs.degradation == "bd" else "center"
        expected = grid.rescale(coarse.affine, (3, 3, 1), anchor)
        np.testing.assert_allclose(fine.affine, expected, atol=1e-4)


def test_what_upscale_makes_of_them_is_scored_as_the_method_is(pairs: PreparedSet, tmp_path: Path) -> None:
    """The whole way of another program: images, results under the same names, scores."""
    low, made, plain = tmp_path / "low", tmp_path / "made", baseline(pairs)
    assert cli.run(["prepare", "to-nifti", str(pairs.root), str(low)]) == 0
    made.mkdir()
    undone = "bicubic" if pairs.degradation == "bd" else "truncation"
    for path in low.iterdir():
        words = ["upscale", str(path), str(made / path.name), "--method", plain.name, "--strict", "off"]
        assert cli.run([*words, "--acquisition", undone]) == 0
    report = evaluate.evaluate(pairs, [plain], predictions=[made])
    ours, others = report.rows[::2], report.rows[1::2]
    assert [r["method"] for r in others] == ["made"] * 3
    for a, b in zip(ours, others, strict=True):
        assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-3)
    assert "made: images of another program, scored voxel by voxel; what it was" in report.markdown()


def test_any_orientation_format_and_array_is_the_same(
    pairs: PreparedSet, truths: Path, tmp_path: Path
) -> None:
    """Blurred truths: as they are, reoriented to RAS and LPI, in MGH and NRRD, as an array."""
    for i, path in enumerate(sorted(truths.iterdir())):
        image = nib.load(path)
        noisy = image.get_fdata() + np.random.default_rng(i).normal(0, 5, image.shape)
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), image.affine), path)
    expected = scored(pairs, truths)
    assert all(25 < r["psnr"] < 60 for r in expected.values())
    for i, end in enumerate((".nii.gz", ".mgz", ".nrrd", ".npy")):
        folder = tmp_path / f"again{i}"
        folder.mkdir()
        (folder / "log.txt").write_text("not an image")
        for path in truths.iterdir():
            image, name = nib.load(path), path.name[: -len(".nii.gz")]
            for codes in ("RAS", "LPI")[i % 2 : i % 2 + 1] if end != ".npy" else ():
                turn = orientations.ornt_transform(
                    orientations.io_orientation(image.affine), orientations.axcodes2ornt(codes)
                )
                image = image.as_reoriented(turn)
            if end == ".npy":
                np.save(folder / f"{name}.npy", np.moveaxis(image.get_fdata(), 2, 0))
            else:
                io.write(Volume(image.get_fdata().astype(np.float32), image.affine), folder / f"{name}{end}")
        found = scored(pairs, folder)
        for name, row in expected.items():
            assert found[name]["psnr"] == pytest.approx(row["psnr"], abs=1e-4)
            assert found[name]["gmsd"] == pytest.approx(row["gmsd"], abs=1e-6)


def test_what_is_missing_or_elsewhere_is_refused_by_name(
    pairs: PreparedSet, truths: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = sorted(truths.iterdir())[0]
    kept = nib.load(first)
    data, affine, name = kept.get_fdata().astype(np.float32), kept.affine, first.name[: -len(".nii.gz")]

    def said(voxels: np.ndarray, where: np.ndarray) -> str:
        nib.save(nib.Nifti1Image(voxels, where), first)
        return refused(pairs, capsys, "--predictions", truths)

    coarse = affine @ np.diag([2, 2, 1, 1])
    assert "expected 60x72x7 voxels (rows, columns, slices), got 30x36x7" in said(data[::2, ::2], coarse)
    assert "its affine places it up to 3 voxels away" in said(data, shifted(affine, (3, 0, 0)))
    assert "voxels away" in said(data, affine @ np.diag([0.5, 0.5, 1, 1]))
    bad = data.copy()
    bad[3, 4, 2] = np.nan
    assert "NaN" in said(bad, affine)
    first.write_bytes(b"no image")
    assert first.name in refused(pairs, capsys, "--predictions", truths)
    first.unlink()
    lost = refused(pairs, capsys, "--predictions", truths)
    assert f"one image for each of 3 volumes, 1 missing: {name}.nii.gz or {name}.npy" in lost
    for array, why in (
        (np.zeros((3, 4, 5)), "got 3x4x5 of float64"),
        (np.full(pairs.pick("test")[0].shape, np.inf), "that are NaN or infinite"),
    ):
        np.save(truths / f"{name}.npy", array)
        assert why in refused(pairs, capsys, "--predictions", truths)
    (truths / f"{name}.npy").write_bytes(b"\x80\x04N.")  # a pickle
    assert f"{name}.npy: expected an array of numbers" in refused(pairs, capsys, "--predictions", truths)
    nib.save(nib.Nifti1Image(data, affine), first)
    assert "expected one image for each volume, got" in refused(pairs, capsys, "--predictions", truths)
    assert "expected a folder" in refused(pairs, capsys, "--predictions", truths / "none")
    assert "named twice" in refused(pairs, capsys, "--predictions", truths.parent, truths.parent)


def test_a_half_voxel_is_scored_and_told(pairs: PreparedSet, truths: Path) -> None:
    for path in truths.iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(image.get_fdata(), shifted(image.affine, (0.5, -0.5, 0))), path)
    report = evaluate.evaluate(pairs, [baseline(pairs)], predictions=[truths])
    assert "their affines are up to 0.5 voxels off the truth's" in report.markdown()
    assert all(r["psnr"] > 100 for r in report.rows if r["method"] == "other")


def test_masks(pairs: PreparedSet, truths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder, or tissue by the truth; what is outside of it has no say."""
    masks, made = tmp_path / "masks", tmp_path / "made"
    for folder in (masks, made):
        folder.mkdir()
    for volume in pairs.pick("test"):
        image = nib.load(truths / f"{volume.name}.nii.gz")
        inside = np.zeros(image.shape, np.uint8)
        inside[10:30, 12:40, 2:5] = 1
        nib.save(nib.Nifti1Image(inside, image.affine), masks / f"{volume.name}.nii.gz")
        wrong = image.get_fdata() + np.where(inside, 2.0, 300.0)
        nib.save(nib.Nifti1Image(wrong.astype(np.float32), image.affine), made / f"{volume.name}.nii.gz")
    found = scored(pairs, made, mask=masks)
    for volume in pairs.pick("test"):
        assert found[volume.name]["psnr"] == pytest.approx(20 * np.log10(volume.span / 2), abs=1e-3)
        assert found[volume.name]["voxels"] == 20 * 28 * 3
    tissue = scored(pairs, made, mask=evaluate.TISSUE_MASK)
    whole = scored(pairs, made)
    assert all(0 < tissue[n]["voxels"] < whole[n]["voxels"] for n in whole)
    text = evaluate.evaluate(pairs, [baseline(pairs)], mask=evaluate.TISSUE_MASK).markdown()
    assert "mask: tissue, voxels where the truth is above offset + 0.1" in text
    name = pairs.pick("test")[1].name
    empty = nib.load(masks / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(empty.shape, np.uint8), empty.affine), masks / f"{name}.nii.gz")
    assert f"{name}.nii.gz: expected a mask of some voxels" in refused(pairs, capsys, "--mask", masks)
    (masks / f"{name}.nii.gz").unlink()
    assert f"1 missing: {name}.nii.gz" in refused(pairs, capsys, "--mask", masks)
    assert "--mask tisue: expected a folder" in refused(pairs, capsys, "--mask", "tisue")


def test_the_report_of_the_command(pairs: PreparedSet, truths: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(pairs.root), "--methods", baseline(pairs).name, "--predictions", str(truths)]
    assert cli.run([*words, "--out", str(tmp_path / "r")]) == 0
    kept = json.loads((tmp_path / "r.json").read_text())
    assert {p["metric"] for p in kept["paired"]} == set(metrics.METRICS)
    assert all(p["subjects"] == 3 for p in kept["paired"])
    hfen = next(p for p in kept["paired"] if p["metric"] == "hfen")
    assert hfen["difference"] < 0
    assert hfen["low"] is hfen["high"] is hfen["p"] is None  # of three subjects no interval is known
    assert re.search(r"\| T2 \| other \| 3 \| – \| \+0\.\d{4} \|", (tmp_path / "r.md").read_text())
    with (tmp_path / "r.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    assert {r["subject"] for r in table} == {"s0", "s1", "s2"}
    swapped = [*words, "--baseline", "other", "--out", str(tmp_path / "s")]
    assert cli.run(swapped) == 0
    other = next(p for p in json.loads((tmp_path / "s.json").read_text())["paired"] if p["metric"] == "hfen")
    assert other["difference"] == pytest.approx(-hfen["difference"])
    assert cli.run([*words, "--baseline", "none"]) == 2
    assert cli.run([*words, "--out", str(tmp_path / "no" / "r")]) == 2


def test_a_set_of_an_earlier_version_takes_arrays(
    pairs: PreparedSet, truths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = [dataclasses.replace(v, affine=None) for v in pairs.volumes]
    old, arrays = dataclasses.replace(pairs, volumes=volumes), tmp_path / "arrays"
    with pytest.raises(evaluate.BadInput, match=r"earlier version.* run `seran prepare` again .arrays"):
        evaluate.evaluate(old, [baseline(pairs)], predictions=[truths])
    arrays.mkdir()
    for volume in pairs.pick("test"):
        np.save(arrays / f"{volume.name}.npy", pairs.high(volume))
    assert all(r["psnr"] == np.inf for r in scored(old, arrays).values())


def net(path: Path, scale: int = 2, weight: float = 1.0, channels: int = 1, fixed: bool = False) -> Path:
    """An ONNX file that nothing of seran's made: every pixel becomes scale x scale of its own."""
    kernel = np.full((scale**2, channels, 1, 1), weight / channels, np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["maps"]),
        helper.make_node("DepthToSpace", ["maps"], ["fine"], blocksize=scale),
    ]
    values = [numpy_helper.from_array(kernel, "k")]
    if fixed:
        nodes[1:1] = [helper.make_node("Reshape", ["maps", "shape"], ["square"])]
        nodes[2] = helper.make_node("DepthToSpace", ["square"], ["fine"], blocksize=scale)
        values.append(numpy_helper.from_array(np.array([1, scale**2, 32, 32]), "shape"))
    graph = helper.make_graph(
        nodes, "foreign",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, "h", "w"])],
        [helper.make_tensor_value_info("fine", TensorProto.FLOAT, None)],
        values,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_network_of_another_program(pairs: PreparedSet, tmp_path: Path) -> None:
    """It sees slices of about [0, 1], and what it makes comes back to the truth's intensities."""
    path = net(tmp_path / "nearest.onnx")
    plain, out = baseline(pairs).name, tmp_path / "r"
    assert (
        cli.run(["evaluate", str(pairs.root), "--methods", plain, "--onnx", str(path), "--out", str(out)])
        == 0
    )
    kept = json.loads((tmp_path / "r.json").read_text())
    volume = pairs.pick("test")[0]
    repeated = np.asarray(pairs.low(volume, 2)).repeat(2, 1).repeat(2, 2)
    expected = metrics.psnr(np.asarray(pairs.high(volume)), repeated, volume.span)
    row = next(r for r in kept["rows"] if (r["name"], r["method"]) == (volume.name, "nearest"))
    assert row["psnr"] == pytest.approx(expected, abs=1e-3)
    stated = next(m for m in kept["methods"] if m["name"] == "nearest")
    assert stated["weights"] == "nearest.onnx"
    assert stated["precision"] == "f32"
    assert "nearest: what it was trained on is not known here" in (tmp_path / "r.md").read_text()


def test_networks_that_cannot_be_scored(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(path: Path, *more: str) -> str:
        return refused(pairs, capsys, "--onnx", path, *more)

    assert "expected 1x1x48x64 of a slice of 24x32 at x2, got 1x1x72x96" in said(net(tmp_path / "x3.onnx", 3))
    assert "the enlargement must be inside the network" in said(net(tmp_path / "same.onnx", 1))
    assert "expected one input of (slices, 1, rows, columns)" in said(net(tmp_path / "rgb.onnx", channels=3))
    # OpenVINO says that they do not fit; with one thread it makes 64x64 of any slice
    fixed = said(net(tmp_path / "fixed.onnx", fixed=True))
    assert "it must take slices of any size" in fixed or "of a slice of 24x32 at x2, got 1x1x64x64" in fixed
    nan = said(net(tmp_path / "nan.onnx", weight=float("nan")))
    assert "the network's result is no image of finite values" in nan
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    assert "cannot be run" in said(tmp_path / "broken.onnx")
    assert "no such file" in said(tmp_path / "none.onnx")
    assert "with --precision f32 or bf16" in said(net(tmp_path / "a.onnx"), "--precision", "int8")
    plain = baseline(pairs).name
    assert "named twice" in said(net(tmp_path / f"{plain}.onnx"))
    from seran import weights

    sealed = next(p for key, p in weights.at_hand().items() if key == "srcnn-x2-bd")
    assert "is a weights file of seran's" in said(sealed)
