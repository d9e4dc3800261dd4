import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import io, scratch, sharpen
from seran.classical import bicubic
from seran.sharpen import Normalisation
from tests.conftest import bare, oblique, phantom, planned


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything counts as large, and a part is a few rows."""
    monkeypatch.setattr(scratch, "LARGE", 0)
    monkeypatch.setattr(scratch, "PART", 4 * 1500)


def test_small_arrays_are_in_memory(tmp_path: Path) -> None:
    assert not isinstance(scratch.allocator(tmp_path)((3, 4, 5)), np.memmap)


@pytest.mark.usefixtures("tiny")
def test_a_large_array_keeps_its_values_without_a_name_on_the_disk(tmp_path: Path) -> None:
    array = scratch.allocator(tmp_path)((7, 30, 50))
    values = np.random.default_rng(0).random(array.shape, np.float32)
    for at in scratch.blocks(array):
        array[at] = values[at]
        scratch.release(array[at].swapaxes(0, 1))
    np.testing.assert_array_equal(array, values)
    assert isinstance(array, np.memmap)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads Linux's account of the memory")
@pytest.mark.usefixtures("tiny")
def test_a_resting_array_is_out_of_memory(tmp_path: Path) -> None:
    array = scratch.allocator(tmp_path)((64, 128, 128))

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().split(str(tmp_path))[1].splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Rss:")))

    array[:] = 1
    assert resident() >= array.nbytes / 1024
    scratch.release(array)
    assert resident() == 0
    assert array.min() == 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.usefixtures("tiny")
def test_parts_cover_an_array_once_in_the_order_of_the_disk(order: str) -> None:
    array = np.zeros((7, 30, 50), np.float32, order=order)  # type: ignore[call-overload]
    parts = list(scratch.blocks(array))
    assert len(parts) > 3
    for i, at in enumerate(parts):
        assert (array[at] == 0).all()
        array[at] = i + 1
    flat = array.ravel(order=order)  # type: ignore[arg-type]
    assert (np.diff(flat) >= 0).all()
    assert flat[0] == 1


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
def test_a_scan_on_disk_is_sharpened_to_the_same_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plane: str, end: str
) -> None:
    """For slices along each axis, packed or not; its values are scaled, some negative."""
    source = tmp_path / f"in{end}"
    image = nib.Nifti1Image((phantom((26, 35, 19)) - 20).astype(np.int16), oblique())
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, source)
    made = []
    for large in (scratch.LARGE, 0):
        monkeypatch.setattr(scratch, "LARGE", large)
        monkeypatch.setattr(scratch, "PART", large or 4000)
        monkeypatch.setattr(sharpen, "CHUNK_PIXELS", 6000)
        allocate = scratch.allocator(tmp_path)
        scan = next(io.read_series(source, allocate=allocate).volumes)
        assert isinstance(scan.data, np.memmap) == (large == 0)
        found = bare(bicubic(2))
        plan = planned(scan, found, plane)  # type: ignore[arg-type]
        result, _ = sharpen.upscale(scan, found, plan, allocate=allocate)
        io.write(result, tmp_path / f"out{end}")
        content = (tmp_path / f"out{end}").read_bytes()
        made.append(gzip.decompress(content) if end == ".nii.gz" else content)
    assert made[0] == made[1]


@pytest.mark.parametrize("n", [2, 7, 999, 40_000])
@pytest.mark.usefixtures("tiny")
def test_the_normalisation_is_that_of_percentiles(n: int) -> None:
    stack = np.random.default_rng(n).normal(3, 9, (n, 1, 1)).astype(np.float32)
    low, high = np.percentile(stack.astype(float), (0.1, 99.9))
    found = Normalisation.of(stack)
    assert (found.offset, found.gain) == pytest.approx((min(0, low), high - min(0, low)))
