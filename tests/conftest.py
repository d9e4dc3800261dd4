"""Fixtures: real volumes where they are at hand, and made ones that are never cubes at identity."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seran import weights
from seran.acquisition import Acquisition
from seran.grid import Anchor, Plan, Plane, slice_axis
from seran.quality import report
from seran.sharpen import Method, Predict, upscale
from seran.volume import Volume

SHARED = Path(os.environ.get("SERAN_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed may hold names that are no text; a worker sends its report as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session", autouse=True)
def without_mnn() -> Iterator[None]:
    """MNN stays out of this process, which has a dozen other native libraries; its tests have their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seran.engines.mnn.suits", lambda threads: False)
        yield


@pytest.fixture(autouse=True)
def no_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine adds no lines to what a test expects; tests of these lines say when they come."""
    monkeypatch.setattr("seran.job.display.LINE", float("inf"))


@pytest.fixture(autouse=True)
def shipped_files_stay() -> Iterator[None]:
    """No test writes into the package: the next ones would see other weights."""
    before = {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in weights.SHIPPED.iterdir()}
    yield
    assert before == {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in weights.SHIPPED.iterdir()}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real volumes with its MANIFEST.csv."""
    if not (SHARED / "MANIFEST.csv").is_file():
        pytest.skip(f"no real volumes at {SHARED}; point SERAN_DATA at a folder with a MANIFEST.csv")
    return SHARED


def phantom(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth blobs with edges and a little noise on a dark background, never negative."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n + 2)[1:-1] for n in shape], indexing="ij")
    image = np.zeros(shape)
    for _ in range(12):
        center = rng.uniform(-0.6, 0.6, len(shape))
        radius = rng.uniform(0.1, 0.5, len(shape))
        inside = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, center, radius, strict=True)) < 1
        image += inside * rng.uniform(50, 400)
    image += np.abs(rng.normal(0, 4, shape)) * (image > 0)
    return image.astype(np.float32)


def taken(sigma: float, seed: int = 0) -> np.ndarray:
    """A scan of 100x92x3 voxels with air around and noise, 99.9th percentile about 1000."""
    truth = np.moveaxis(gaussian_filter(phantom((100, 92, 3)), (0.7, 0.7, 0)), 2, 0)
    return np.moveaxis(Acquisition((100, 92))(truth, sigma, np.random.default_rng(seed)), 0, 2)


def oblique(spacing: tuple[float, float, float] = (0.9, 0.8, 3.3), left_handed: bool = False) -> np.ndarray:
    """An anisotropic, oblique, off-origin affine."""
    a, b, c = 0.31, -0.22, 0.47
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rz @ ry @ rx @ np.diag(spacing) @ np.diag([-1 if left_handed else 1, 1, 1])
    affine[:3, 3] = [-71.3, 22.9, 48.1]
    return affine


def bare(predict: Predict, scale: int = 2, anchor: Anchor = "corner", context: int | None = 0) -> Method:
    """A method that is nothing but its predictor."""
    return Method("bare", (scale, scale), predict, "bd", anchor, context)


def planned(volume: Volume, method: Method, plane: Plane = "auto") -> Plan:
    """Where a method's result lies."""
    axis = slice_axis(volume.affine, volume.data.shape, plane, volume.slices)
    return Plan(volume.grid, axis, method.factors, method.anchor)


def enlarged(
    volume: Volume, predict: Predict, scale: int = 2, anchor: Anchor = "corner", plane: Plane = "auto"
) -> Volume:
    """What a bare predictor makes of a scan."""
    method = bare(predict, scale, anchor)
    return upscale(volume, method, planned(volume, method, plane))[0]


def shifted(affine: np.ndarray, voxels: tuple[float, float, float]) -> np.ndarray:
    """The same grid moved by so many voxels along its own axes."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.asarray(voxels, float)
    return moved


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A NIfTI file of 26x34x5 int16 voxels with scaling, both transforms, units and an extension."""
    data = phantom((26, 34, 5)).astype(np.int16)
    image = nib.Nifti1Image(data, oblique())
    image.header.set_slope_inter(0.5, 0)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"made for tests"
    image.set_sform(oblique(), 2)
    image.set_qform(oblique(), 1)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"keep me"))
    path = tmp_path / "scan.nii.gz"
    nib.save(image, path)
    return path


@pytest.fixture
def volume() -> Volume:
    """A scan in memory."""
    return Volume(phantom((26, 34, 5)), oblique())


@pytest.fixture
def unlike(tmp_path: Path) -> Path:
    """A series: an empty frame, a skull-stripped one without noise, whole ones of noise 1 and 4 %."""
    head = phantom((100, 92, 3)) > 0
    frames = [np.zeros(head.shape), np.where(head, taken(0.0) + 50, 0), taken(10.0), taken(40.0)]
    path = tmp_path / "unlike.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(frames, -1).astype(np.float32), oblique()), path)
    return path


LOOPBACK = {"0100007F", "0" * 24 + "01000000"}
"""127.0.0.1 and ::1 as Linux writes them."""


def listening(process: int) -> set[tuple[str, int]]:
    """Address, as Linux writes it, and port of every socket on which a process waits for connections."""
    with contextlib.suppress(OSError):
        held = {os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()}  # noqa: PTH115
        lines = [x for v in ("", "6") for x in Path(f"/proc/net/tcp{v}").read_text().splitlines()]
        rows = [row for row in map(str.split, lines) if row[3] == "0A" and f"socket:[{row[9]}]" in held]
        return {(address, int(port, 16)) for address, port in (row[1].split(":") for row in rows)}
    return set()


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's parts and a few bytes in NiiVue's place."""
    folder = tmp_path / "viewer"
    shutil.copytree(report.VIEWER, folder)
    code = b"var niivue = {};"
    (folder / "niivue.umd.js").write_bytes(code)
    (folder / "niivue.lock").write_text(f"0.0.0 {hashlib.sha256(code).hexdigest()}\n")
    monkeypatch.setattr(report, "VIEWER", folder)
    return folder
