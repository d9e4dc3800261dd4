"""The front door: one call, the same path as the command, whatever the scan is held in."""

import functools
import inspect
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import seran
from seran import cli, io, weights
from seran.engines import Engine
from seran.job import record
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, series
from tests.test_engines import alone
from tests.test_formats import save


def test_importing_it_brings_nothing_and_changes_nothing() -> None:
    """Nor numpy, nor a module in another one's place, a logger, a file descriptor."""
    code = """
import sys, os, logging
before = set(sys.modules), set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
loggers = dict(logging.root.manager.loggerDict)
import seran
new = set(sys.modules) - before[0]
assert all(name.split(".")[0] in ("seran", *sys.stdlib_module_names) for name in new), new
assert len(new) < 25, new
assert None not in sys.modules.values()
assert before[1] is None or set(os.listdir("/proc/self/fd")) == before[1]
assert dict(logging.root.manager.loggerDict) == loggers
print(seran.__version__, *seran.__all__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"read", "upscale", "write", "load"} <= set(done.stdout.split())
    assert {"read", "upscale", "write", "load"} <= set(dir(seran))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        seran.nothing  # noqa: B018


def test_it_is_typed() -> None:
    assert (Path(seran.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"scale": 3}, ["--scale", "3"]),
        ({"spacing": 0.5}, ["--spacing", "0.5"]),
        ({"method": "nlm"}, ["--method", "nlm"]),
        ({"weights": "seran-x2-td", "ensemble": True}, ["--weights", "seran-x2-td", "--ensemble"]),
        ({"plane": "sagittal", "method": "bicubic"}, ["--plane", "sagittal", "--method", "bicubic"]),
        ({"engine": Engine(precision="f32")}, ["--precision", "f32"]),
    ],
)
def test_the_same_as_the_command(
    scan: Path, tmp_path: Path, options: dict[str, object], words: list[str]
) -> None:
    """Voxels, header and record; whether it is given a path, a scan, or an image of nibabel."""
    assert cli.run(["upscale", str(scan), str(tmp_path / "command.nii.gz"), *words, "--strict", "off"]) == 0
    theirs = nib.load(tmp_path / "command.nii.gz")
    for i, given in enumerate((scan, str(scan), seran.read(scan), nib.load(scan))):
        sharp = seran.upscale(given, **options)  # type: ignore[arg-type]
        seran.write(sharp, tmp_path / f"{i}.nii.gz")
        ours = nib.load(tmp_path / f"{i}.nii.gz")
        np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
        assert ours.header.binaryblock == theirs.header.binaryblock
        assert sharp.to_nibabel().header.binaryblock == theirs.header.binaryblock
        assert (tmp_path / f"{i}.json").is_file()
    made = record.read(tmp_path / "command.nii.gz")
    assert sharp.record is not None
    for name in ("method", "weights_sha256", "scale", "grid_anchor", "precision", "checks", "shape_after"):
        assert getattr(sharp.record, name) == getattr(made, name), name


def test_voxels_and_an_affine() -> None:
    data = phantom((26, 34, 5))
    sharp = seran.upscale((data, oblique()), method="bicubic")
    again = seran.upscale((data.astype(np.float64).tolist(), oblique().tolist()), method="bicubic")
    np.testing.assert_array_equal(sharp.data, again.data)
    assert sharp.data.shape == (52, 68, 5)
    image = sharp.to_nibabel()
    np.testing.assert_allclose(image.affine, sharp.affine, atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_model_is_loaded_once_and_shared_by_threads(scan: Path) -> None:
    model = seran.load("seran", scale=2)
    assert repr(model) == "Model(seran, x2, seran-native.onnx)"
    scans = [
        seran.read(scan),
        *((phantom((26, 34, 4), i), oblique()) for i in (1, 2)),
    ]
    alone = [model(one).data for one in scans]
    found: list[np.ndarray | None] = [None] * len(scans)

    def work(i: int) -> None:
        found[i] = model(scans[i]).data

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(scans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_imply_their_method_and_scale(scan: Path) -> None:
    assert repr(seran.load(weights="vdsr-x2-bd")) == "Model(vdsr, x2, vdsr-x2-bd.onnx)"
    sharp = seran.upscale(scan, weights=weights.shipped()["seran-x3-bd"])
    assert sharp.data.shape == (78, 102, 5)
    with pytest.raises(seran.BadInput, match=r"--method idn: .* holds weights of vdsr"):
        seran.load("idn", weights="vdsr-x2-bd")


def test_every_repr_is_one_short_line(scan: Path) -> None:
    sharp = seran.upscale(scan)
    model = seran.load("vdsr", scale=2)
    assert repr(sharp) == "Scan(52x68x5 voxels of 0.450x0.400x3.300 mm, RAS; seran, x2: WARN)"
    for value in (
        sharp,
        sharp.volume,
        sharp.record,
        model,
        model.method,
        weights.read(weights.shipped()["vdsr-x2-bd"]),
    ):
        assert len(repr(value)) < 200
        assert "\n" not in repr(value)


def test_dicom_goes_in_and_out(tmp_path: Path) -> None:
    series(tmp_path / "study", DATA, oblique(), Modality="MR", SeriesNumber=3)
    sharp = seran.upscale(seran.read(tmp_path / "study"), method="bicubic")
    seran.write(sharp, tmp_path / "derived")
    assert len(list((tmp_path / "derived").iterdir())) == DATA.shape[2]
    assert (tmp_path / "derived.json").is_file()


def test_what_cannot_be_used(scan: Path, tmp_path: Path) -> None:
    sharp = seran.upscale(scan, method="bicubic")
    seran.write(sharp, tmp_path / "there.nii")
    several = save(
        np.stack([phantom((26, 34, 5), t) for t in range(3)], -1), oblique(), tmp_path / "several.nii"
    )
    cases = {
        "holds 3 volumes; choose one: volume=0": lambda: seran.upscale(several),
        "give them one by one": lambda: seran.upscale(nib.load(several)),
        "expected a path, a nibabel image, or": lambda: seran.upscale(7),
        "expected 3-D volumes": lambda: seran.upscale((np.zeros((3, 4, 5, 6, 7)), np.eye(4))),
        "expected one real number per voxel": lambda: seran.upscale(
            (np.zeros((9, 9, 3), complex), np.eye(4))
        ),
        "expected an invertible affine": lambda: seran.upscale((phantom((9, 9, 3)), np.zeros((4, 4)))),
        "243 voxels are NaN, infinite or beyond": lambda: seran.upscale(
            (np.full((9, 9, 3), np.nan), np.eye(4))
        ),
        "1 voxel is NaN, infinite or beyond 1e\\+30; say what takes its place": lambda: seran.upscale(
            (np.where(np.arange(9) == 2, [[np.nan], [1.0]], 1.0)[:, :, None][:1], np.eye(4))
        ),
        "--scale 5: must be 1 or more and at most 4": lambda: seran.upscale(scan, scale=5),
        "what looks like labels": lambda: seran.upscale(((phantom((26, 34, 5)) > 90) * 1.0, oblique())),
        "there.nii exists": lambda: seran.write(sharp, tmp_path / "there.nii"),
        "no such folder": lambda: seran.write(sharp, tmp_path / "no" / "folder.nii"),
        "--volume 3: must be from 0 to 2": lambda: seran.read(several, volume=3),
        "--volume 1: .*there.nii has one volume; leave --volume out": lambda: seran.read(
            tmp_path / "there.nii", volume=1
        ),
    }
    for text, call in cases.items():
        with pytest.raises(seran.BadInput, match=text):
            call()
    assert seran.read(several, volume=2).data.shape == (26, 34, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scan.nii.gz",
        "several.nii",
        "there.json",
        "there.nii",
    ]
    assert io.read(tmp_path / "there.nii").data.shape == (52, 68, 5)


@pytest.mark.parametrize(
    ("affine", "told"),
    [
        (np.eye(3), "4 x 4 numbers"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "invertible affine"),
        ([[1, 2], [3]], "4 x 4 numbers"),
    ],
)
def test_an_affine_that_is_none_is_refused(affine: object, told: str) -> None:
    """Another shape, a last row that is no affine's, rows of several lengths, complex numbers."""
    voxels = np.random.default_rng(0).random((20, 24, 3))
    with pytest.raises(seran.BadInput, match=told):
        seran.upscale((voxels, affine), method="bicubic")


WRONG_WORDS = """
import numpy as np, seran
from seran.engines import Engine
scan = 5 + np.random.default_rng(0).normal(size=(20, 24, 3)), np.diag([1.0, 0.9, 4.0, 1.0])
for call in (
    lambda: seran.upscale(scan, plane="sideways", method="bicubic"),
    lambda: seran.read("scan.nii", affine="pform"),
    lambda: Engine(precision="f16"),
    lambda: seran.load("bicubic", scale=2.5),
    lambda: seran.upscale((scan[0], np.eye(4) * 1j), method="bicubic"),
):
    try:
        call()
    except seran.BadInput as error:
        print(str(error).split(",")[0])
print(seran.load("bicubic", scale=2.0)(scan).record.scale)
"""
"""Run alone, as a user runs it: here the tests' type checker would be asked first."""


def test_words_that_the_command_would_refuse_are_refused_here() -> None:
    """A plane, a transform or a precision that there is not, and a scale that no network has."""
    assert alone(WRONG_WORDS).splitlines() == [
        "--plane sideways: expected auto",
        "--affine pform: expected auto",
        "--precision f16: expected auto",
        "scale 2.5: expected 1",
        "the scan: expected an affine of 4 x 4 numbers",
        "2",
    ]


WRONG_TYPES = """
import numpy as np, seran
scan = 100 + np.random.default_rng(0).normal(size=(20, 24, 3)), np.diag([1.0, 0.9, 4.0, 1.0])
made = seran.upscale(scan, method="bicubic")
up = lambda **more: lambda: seran.upscale(scan, **{"method": "bicubic", **more})
write = lambda path="w.nii", scan=made, **more: lambda: seran.write(scan, path, **more)
read = lambda path="w.nii", **more: lambda: seran.read(path, **more)
calls = [
    up(scale="2"), up(spacing="x"), up(like=3), up(weights=3), up(method=5), up(isotropic="1"),
    up(scanner={}), up(engine=None), lambda: seran.load(scanner={}),
    lambda: seran.load(5), lambda: seran.load(scale="2"), read(None), read(volume="1"), read(fill="0"),
    *(write(dtype=name) for name in ("complex64", "bool", "x", "U3", "float16", None)),
    write(""), write(None), write(scan=scan), write("folder"),
    *(lambda a=a: seran.upscale((scan[0], a)) for a in (scan[1][:3], *map(scan[1].astype, (str, object)))),
    lambda: seran.upscale(([[1, 2], [3]], scan[1])), lambda: seran.upscale((scan[0][0, 0], scan[1])),
    lambda: seran.Scan(*scan),
]
for call in calls:
    try:
        print("nothing", call())
    except seran.BadInput as error:
        print(error)
assert up(scale=np.int64(2), weights=None)().data.shape == up(scale=np.float32(2))().data.shape == (40, 48, 3)
"""


def test_arguments_of_another_type_are_told_in_one_line() -> None:
    """Under their own names, not as an error from somewhere within; nor is a hidden file named."""
    told = alone(WRONG_TYPES).splitlines()
    expected = [
        "scale: expected a number, got '2' (str)", "spacing: ", "like: ", "weights: ", "method: ",
        "isotropic: expected True, False or a number, got '1'", "scanner: expected a seran.Scanner, got {}",
        "engine: expected a seran.engines.Engine, got None", "scanner: ",
        "method: expected a name, got 5 (int)", "scale: ", "path: ", "volume: ", "fill: ",
        "dtype 'complex64': expected numpy's name of real numbers, such as float32 or int16",
        "dtype 'bool'", "dtype 'x'", "dtype 'U3'", "dtype 'float16'", "dtype None",
        "path '': expected the name of a file", "path: expected a path, got None", "expected a Scan",
        "folder: only what was read from DICOM",
        *["the scan: expected an affine of 4 x 4 numbers, got [["] * 3,
        "the scan: expected voxels (x, y, z), got rows of several lengths", "the scan: slices of ",
        "Scan: expected a seran.volume.Volume(voxels, affine), got ndarray",
    ]  # fmt: skip
    assert len(told) == len(expected), told
    for line, begin in zip(told, expected, strict=True):
        assert line.startswith(begin), line


def test_masked_voxels_are_not_used_as_if_they_counted() -> None:
    data = phantom((26, 34, 5))
    bright = np.ma.masked_greater(data, 600)
    with pytest.raises(
        seran.BadInput, match=r"the scan: expected voxels that all count, got \d+ masked ones; say"
    ):
        seran.upscale((bright, oblique()), method="bicubic")
    plain = seran.upscale((np.ma.masked_greater(data, 1e9), oblique()), method="bicubic")
    np.testing.assert_array_equal(plain.data, seran.upscale((data, oblique()), method="bicubic").data)


def test_a_result_that_was_read_is_known_as_one(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path, as `read` or nibabel gave it, from a folder that is named by a dot, too."""
    seran.write(seran.upscale(scan, method="bicubic"), tmp_path / "out.nii")
    series(tmp_path / "study", DATA, oblique(), Modality="MR")
    assert not seran.read(scan).sharpened
    for read in (tmp_path / "out.nii", seran.read(tmp_path / "out.nii"), nib.load(tmp_path / "out.nii")):
        with pytest.raises(seran.BadInput, match="got what looks like a result of seran's"):
            seran.upscale(read, method="bicubic")
    again = seran.upscale(seran.read(tmp_path / "out.nii"), method="bicubic", label_check=False)
    assert again.record is not None
    assert again.record.sharpened
    monkeypatch.chdir(tmp_path / "study")
    assert not seran.read(".").sharpened


def test_a_scan_without_record_takes_a_former_record_away(tmp_path: Path) -> None:
    """What is beside a file describes that file; a description that is not ours stays."""
    scan = phantom((20, 24, 3)), np.diag([1.0, 0.9, 4.0, 1.0])
    made, path = seran.upscale(scan, method="bicubic"), tmp_path / "one.nii.gz"
    seran.write(made, path)
    plain = seran.read(path)
    seran.write(plain, path, force=True)
    assert not (tmp_path / "one.json").exists()
    (tmp_path / "one.json").write_text("{}")
    seran.write(plain, path, force=True)
    assert (tmp_path / "one.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"acquisition": "bicubic"}, "give scanner=seran.Scanner(acquisition='bicubic')"),
        ({"noise": 0.02}, "give scanner=seran.Scanner(noise=0.02)"),
        ({"threads": 2}, "give engine=seran.engines.Engine(threads=2)"),
        ({"methd": "seran"}, "did you mean method?"),
    ],
)
def test_an_option_in_the_wrong_place_says_where_it_belongs(options: dict[str, Any], said: str) -> None:
    for function in (seran.load, functools.partial(seran.upscale, "scan.nii.gz")):
        with pytest.raises(TypeError, match=re.escape(said)):
            function(**options)


def test_help_says_what_attributes_hold() -> None:
    for kind, names in ((seran.Scan, ("volume", "record", "maps")), (seran.Model, ("method", "engine"))):
        text = inspect.getdoc(kind) or ""
        assert all(f"    {name}: " in text for name in names)
    assert "float32" in (seran.Scan.data.__doc__ or "")
    assert "scale: float | None = None" in str(inspect.signature(seran.upscale))
