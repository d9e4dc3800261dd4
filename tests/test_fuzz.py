"""Damaged files of every format: each ends in a sound result or in one line, and leaves nothing else."""

import gzip
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from seran import cli, io
from tests.conftest import oblique, phantom
from tests.test_dicom import series
from tests.test_formats import save

SECONDS = 20
"""After which a case counts as hanging."""
LARGEST = 2 * 2**30
"""Bytes of memory that a case may take beyond what the process had when it began."""
EXAMPLES = 300
CASES = 2000
"""Of all formats together, at least."""
ENDS = [".nii", ".nii.gz", ".hdr", ".mgh", ".mgz", ".nrrd", ".mha", "dicom"]

place = st.floats(0, 1, exclude_max=True)
early = st.floats(0, 0.02)
change = st.one_of(
    st.tuples(st.just("write"), st.one_of(early, place), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("flip"), early, st.integers(0, 7)),
    st.tuples(st.just("cut"), place, st.none()),
    st.tuples(st.just("insert"), st.one_of(early, place), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("remove"), st.one_of(early, place), st.integers(1, 64)),
    st.tuples(st.just("zero"), place, st.integers(1, 512)),
)
damage = st.lists(change, min_size=1, max_size=4)


def damaged(content: bytes, changes: list[tuple]) -> bytes:
    made = bytearray(content)
    for kind, where, what in changes:
        at = int(where * len(made))
        if kind == "write":
            made[at : at + len(what)] = what
        elif kind == "flip" and at < len(made):
            made[at] ^= 1 << what
        elif kind == "cut":
            del made[at:]
        elif kind == "insert":
            made[at:at] = what
        elif kind == "remove":
            del made[at : at + what]
        elif kind == "zero":
            made[at : at + what] = bytes(len(made[at : at + what]))
    return bytes(made)


@contextmanager
def limited() -> Iterator[None]:
    def late(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def memory(peak: bool) -> int:
    """Bytes that this process holds, or the most that it held since it was told to forget; Linux only."""
    name = "VmHWM" if peak else "VmRSS"
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {name}")


def judge(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> int:
    folder = out.parent
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory(peak=False)
    with limited():
        status = cli.run(["upscale", str(source), str(out), "--method", "bicubic", "--fill", "0"])
    shown = capsys.readouterr()
    left = {p.name for p in folder.iterdir()}
    if status == 0:
        assert left == {out.name, "out.json"}
        made = list(io.read_series(out).volumes)
        assert made
        assert all(np.isfinite(v.data).all() and np.isfinite(v.affine).all() for v in made)
        assert all(line.endswith("are left out") for line in shown.err.splitlines())  # what follows voxels
    else:
        assert status == 2
        assert left == set()
        assert len(shown.err.splitlines()) == 1
        assert shown.err.startswith("seran: ")
        assert shown.err.strip().isprintable()
    assert memory(peak=True) - before < LARGEST
    return status


def real(end: str, folder: Path) -> list[Path]:
    """Files that scanners and others wrote, as they come with nibabel and pydicom: one list is one scan."""
    shared = Path(nibabel.__file__).parent / "tests/data"
    if end == "dicom":
        return [Path(str(get_testdata_file("MR_small.dcm")))]
    if end in (".nii", ".nii.gz"):
        name = {".nii": "functional.nii", ".nii.gz": "example_nifti2.nii.gz"}[end]
        return [Path(shutil.copy(shared / name, folder / f"in{end}"))]
    if end in (".mgh", ".mgz", ".hdr"):  # the MGH file there is sheared
        kind = nibabel.Nifti1Pair if end == ".hdr" else nibabel.MGHImage
        nibabel.save(kind.from_image(nibabel.load(shared / "anatomical.nii")), folder / f"in{end}")
    else:
        sitk.WriteImage(sitk.ReadImage(str(shared / "anatomical.nii")), str(folder / f"in{end}"))
    return sorted(folder.iterdir())


def made(end: str, folder: Path) -> list[Path]:
    """A scan of ours: oblique, anisotropic."""
    if end == "dicom":
        tags = {"Modality": "MR", "SeriesNumber": 3}
        return series(folder, phantom((26, 22, 3)).astype(np.int16), oblique(), **tags)
    save(phantom((26, 22, 5)).astype(np.int16), oblique(), folder / f"in{end}")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, bytes]]]:
    """The files of two sound scans in every format."""
    return {
        end: [
            {path.name: path.read_bytes() for path in files(end, tmp_path_factory.mktemp("whole"))}
            for files in (made, real)
        ]
        for end in ENDS
    }


def told(end: str, files: dict[str, bytes], out: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Upscale these files in a folder of their own; the exit status."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "in").mkdir()
        (folder / "out").mkdir()
        for name, content in files.items():
            (folder / "in" / name).write_bytes(content)
        source = folder / "in" if end == "dicom" else folder / "in" / f"in{end}"
        return judge(source, folder / "out" / out, capsys)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_damage_never_ends_in_a_traceback(
    end: str, whole: dict[str, list[dict[str, bytes]]], capsys: pytest.CaptureFixture[str]
) -> None:
    packed = end in (".nii.gz", ".mgz")
    outs = ["out.nii", "out"] if end == "dicom" else ["out.nii"]  # a derived series, too
    for files in whole[end]:
        for out in outs:
            assert told(end, files, out, capsys) == 0

    cases = 0

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        changes=damage, scan=st.integers(0, 1), which=st.integers(0, 9), inside=st.booleans(),
        out=st.sampled_from(outs),
    )  # fmt: skip
    def check(changes: list[tuple], scan: int, which: int, inside: bool, out: str) -> None:
        nonlocal cases
        cases += 1
        files = dict(whole[end][scan])
        name = sorted(files)[which % len(files)]
        if packed and inside:  # damage to what is packed, not to the packing
            files[name] = gzip.compress(damaged(gzip.decompress(files[name]), changes), 1)
        else:
            files[name] = damaged(files[name], changes)
        told(end, files, out, capsys)

    check()
    assert cases * len(ENDS) >= CASES
