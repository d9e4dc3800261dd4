"""The IXI preparation on synthetic archives, and its command against a local server."""

import contextlib
import csv
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli
from seran.data import ixi
from seran.data.pairs import load_prepared
from seran.errors import BadInput
from tests.conftest import oblique, phantom

SUBJECTS = {
    "IXI002": "train",  # Guys
    "IXI013": "train",  # HH, an odd number of slices
    "IXI035": "test",  # IOP, larger in the plane
    "IXI040": "test",  # not in the archive
    "IXI041": "val",  # damaged
    "IXI042": "val",  # too few slices
}


def nifti(shape: tuple[int, int, int], seed: int) -> bytes:
    image = nib.Nifti1Image(phantom(shape, seed).astype(np.int16), oblique((0.94, 0.94, 1.25)))
    return image.to_bytes()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IXI-PD.tar of small volumes, a list of subjects, and the cut to 10x48x60."""
    import gzip

    path = tmp_path / "archives" / "IXI-PD.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        add(tar, "IXI002-Guys-0828-PD.nii.gz", gzip.compress(nifti((56, 70, 12), 2)))
        add(tar, "IXI013-HH-1212-PD.nii.gz", gzip.compress(nifti((56, 70, 13), 3)))
        add(tar, "../IXI035-IOP-0873-PD.nii.gz", gzip.compress(nifti((64, 72, 10), 4)))
        add(tar, "IXI041-Guys-0706-PD.nii.gz", gzip.compress(nifti((56, 70, 12), 5))[:-3000])
        add(tar, "IXI042-Guys-0725-PD.nii.gz", gzip.compress(nifti((56, 70, 9), 6)))
        add(tar, "IXI099-Guys-0748-PD.nii.gz", gzip.compress(nifti((56, 70, 12), 7)))  # not listed
        add(tar, "IXI002-Guys-0828-T2.nii.gz", gzip.compress(nifti((56, 70, 12), 8)))  # another contrast
        add(tar, "notes.txt", b"hello")
    with (tmp_path / "subjects.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "split"), *SUBJECTS.items()])
    content = path.read_bytes()
    monkeypatch.setattr(ixi, "SUBJECTS", tmp_path / "subjects.csv")
    monkeypatch.setattr(ixi, "SHAPE", (10, 48, 60))
    made = ixi.Archive("IXI-PD.tar", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(ixi.ARCHIVES, "PD", made)
    return path


@pytest.mark.parametrize("degradation", ["bd", "td"])
def test_what_can_be_used_is_and_the_rest_is_named(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], degradation: str
) -> None:
    command = ["prepare", "ixi", tmp_path / "set", "--contrast", "PD", "--archives", archive.parent]
    assert cli.run([str(part) for part in (*command, "--degradation", degradation)]) == 0
    assert "3 volumes (2 train, 0 val, 1 test)" in capsys.readouterr().out
    made = load_prepared(tmp_path / "set")
    assert (made.integer, made.fourier_crop, made.degradation) == (True, False, degradation)
    assert {v.subject: v.split for v in made.volumes} == {
        "IXI002": "train",
        "IXI013": "train",
        "IXI035": "test",
    }
    assert all(v.licence == "CC BY-SA 3.0" and "brain-development" in v.repository for v in made.volumes)
    for volume in made.volumes:
        high = made.high(volume)
        assert high.shape == (10, 48, 60)
        assert high.dtype == np.int32
        assert made.low(volume, 4).shape == (10, 12, 15)
    central = np.moveaxis(phantom((56, 70, 13), 3).astype(np.int16), 2, 0)[1:11, 4:52, 5:65]
    np.testing.assert_array_equal(made.high(made.volumes[1]), central)
    reasons = {row["source"]: row["reason"] for row in made.skipped}
    assert set(reasons) == {
        "IXI040-PD.nii.gz",
        "IXI041-Guys-0706-PD.nii.gz",
        "IXI042-Guys-0725-PD.nii.gz",
    }
    assert (
        "expected at least 10x48x60 (slices, rows, columns), got 9x56x70"
        in reasons["IXI042-Guys-0725-PD.nii.gz"]
    )
    assert not list(tmp_path.rglob("IXI*.nii.gz")), "members are unpacked elsewhere and removed"


def test_a_damaged_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(BadInput, match=r"IXI-PD\.tar"):
        list(ixi.sources(archive, "PD"))
    command = ["prepare", "ixi", tmp_path / "set", "--contrast", "PD", "--archives", archive.parent]
    assert cli.run([str(part) for part in command]) == 2
    assert not (tmp_path / "set").exists()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_not_on_disk_is_downloaded(archive: Path, tmp_path: Path) -> None:
    command = ["prepare", "ixi", tmp_path / "set", "--contrast", "PD", "--archives", tmp_path / "fetched"]
    with served(archive.parent) as address:
        assert cli.run([str(part) for part in (*command, "--scales", 2, "--address", address)]) == 0
    assert (tmp_path / "fetched" / "IXI-PD.tar").read_bytes() == archive.read_bytes()
    assert len(load_prepared(tmp_path / "set").volumes) == 3


def test_the_published_list() -> None:
    splits = ixi.splits()
    assert [list(splits.values()).count(s) for s in ("train", "test", "val")] == [500, 70, 6]
    assert list(splits) == sorted(splits), "by number"
    assert list(splits.values()) == ["train"] * 500 + ["test"] * 70 + ["val"] * 6
    assert all(len(s) == 6 and s.startswith("IXI") for s in splits)
