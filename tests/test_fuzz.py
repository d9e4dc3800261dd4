"""Damaged files of every format: each ends in a sound result or in one line, and leaves nothing else."""

import gzip
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seran import cli, io
from tests.conftest import oblique, phantom
from tests.test_dicom import series
from tests.test_formats import save

SECONDS = 20
"""After which a case counts as hanging."""
LARGEST = 2 * 2**30
"""Bytes of memory that the process may ever have taken."""
EXAMPLES = 300
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


def judge(source: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.nii"
    with limited():
        status = cli.run(["upscale", str(source), str(out), "--method", "bicubic", "--fill", "0"])
    shown = capsys.readouterr()
    left = {p.name for p in folder.iterdir()}
    if status == 0:
        assert left == {"out.nii", "out.json"}
        made = list(io.read_series(out).volumes)
        assert made
        assert all(np.isfinite(v.data).all() and np.isfinite(v.affine).all() for v in made)
        assert not shown.err
    else:
        assert status == 2
        assert left == set()
        assert len(shown.err.splitlines()) == 1
        assert shown.err.startswith("seran: ")
        assert shown.err.strip().isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < LARGEST


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a sound scan in every format."""
    found = {}
    for end in ENDS:
        folder = tmp_path_factory.mktemp("whole")
        if end == "dicom":
            series(folder, phantom((26, 22, 3)).astype(np.int16), oblique(), Modality="MR", SeriesNumber=3)
        else:
            save(phantom((26, 22, 5)).astype(np.int16), oblique(), folder / f"in{end}")
        found[end] = {p.name: p.read_bytes() for p in folder.iterdir()}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_damage_never_ends_in_a_traceback(
    end: str, whole: dict[str, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    packed = end in (".nii.gz", ".mgz")

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(changes=damage, which=st.integers(0, 9), inside=st.booleans())
    def check(changes: list[tuple], which: int, inside: bool) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            (folder / "in").mkdir()
            (folder / "out").mkdir()
            files = dict(whole[end])
            name = sorted(files)[which % len(files)]
            content = files[name]
            if packed and inside:  # damage to what is packed, not to the packing
                content = gzip.compress(damaged(gzip.decompress(content), changes), 1)
            else:
                content = damaged(content, changes)
            files[name] = content
            for file, bytes_ in files.items():
                (folder / "in" / file).write_bytes(bytes_)
            source = folder / "in" if end == "dicom" else folder / "in" / f"in{end}"
            judge(source, folder / "out", capsys)
        finally:
            shutil.rmtree(folder)

    check()
