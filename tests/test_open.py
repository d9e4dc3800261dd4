"""The open benchmark through a local server that is both the raw host and the one that lists repositories."""

import contextlib
import csv
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files, io
from seran.data import fetch, open_set
from seran.data.open_set import Row
from seran.data.pairs import SPLITS, load_prepared
from seran.errors import BadInput
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_dicom import change, series

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Host:
    """Repositories of files; how much of a file is sent before the connection ends; what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    listing: Callable[[dict[str, Any]], object] = lambda tree: tree
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    address: str = ""

    def add(self, repository: str, commit: str, path: str, data: bytes) -> None:
        """A file, as the raw host names it."""
        self.files[f"/{repository}/{commit}/{path}"] = data

    def answer(self, path: str) -> bytes | None:
        """A file, or a listing as GitHub makes it."""
        if listed := re.fullmatch(r"/repos/(.+)/git/trees/(\w+)\?recursive=1", path):
            root = f"/{listed[1]}/{listed[2]}/"
            tree = [
                {
                    "path": name.removeprefix(root),
                    "mode": "100644",
                    "type": "blob",
                    "sha": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
                    "size": len(data),
                    "url": "https://127.0.0.1/never-asked",
                }
                for name, data in self.files.items()
                if name.startswith(root)
            ]
            folder = {"path": "folder", "mode": "040000", "type": "tree", "sha": COMMIT}
            made = self.listing({"sha": listed[2], "url": "", "tree": [folder, *tree], "truncated": False})
            return made if isinstance(made, bytes) else json.dumps(made).encode()
        return self.files.get(urllib.parse.unquote(path))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "sleep", lambda seconds: None)
    made = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send a file from the byte that is asked for on."""
            made.asked.append((self.path, self.headers["Range"]))
            data = made.answer(self.path)
            begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(404 if data is None else 206 if begin else 200)
            self.send_header("Content-Length", str(len(data or b"") - begin))
            if data is not None and begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write((data or b"")[begin : made.cut.get(self.path)])

        def log_message(self, *args: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def list_rows(path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the published list."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(vars(rows[0])))
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
    monkeypatch.setattr(open_set, "ROWS", path)


def row(path: str, repository: str, source: str, **known: str) -> Row:
    subject = re.sub(r"\W.*", "", Path(path).name)
    known = {"size": "", "sha256": "", "voxels": "", "voxel_mm": "", "edition": "1"} | known
    return Row(Path(path).parts[0], path, "T2", subject, repository, COMMIT, source, "CC0", **known)


def volumes(folder: Path) -> dict[str, Path]:
    """Scans as they would be converted, by the paths of the list."""
    made = {}
    for i, (name, depth) in enumerate(
        [("train/plain", 5), ("val/echo-1", 4), ("val/echo-2", 4), ("test/part-1", 5), ("test/part-2", 2)]
    ):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = oblique((0.9, 0.8, 3.3))
        if name == "test/part-2":  # one slice is missing after part 1
            affine[:3, 3] += affine[:3, 2] * 6
        nib.save(nib.Nifti1Image(phantom((52, 60, depth), i).astype(np.int16), affine), path)
        made[f"{name}.nii.gz"] = path
    return made


def dicoms(folder: Path, scans: list[Path], **tags: Any) -> list[Path]:
    """A series whose parts or echoes are these scans."""
    paths = []
    for i, path in enumerate(scans):
        scan = io.read(path, affine="either")
        made = series(
            folder / str(i), scan.data.astype(np.int16), scan.affine, **{k: v[i] for k, v in tags.items()}
        )
        paths += made
    return paths


@dataclass
class Made:
    """A small list, its scans, and the CSV of `seran prepare` that names these."""

    rows: list[Row]
    scans: dict[str, Path]
    manifest: Path


@pytest.fixture
def made(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A NIfTI file whose path needs quoting, a series of two echoes, and one of two parts."""
    scans = volumes(tmp_path / "original")
    data = scans["train/plain.nii.gz"].read_bytes()
    source = "sub 1/T2#a%20é.nii.gz"
    rows = [
        row(
            "train/plain.nii.gz",
            "a/plain",
            source,
            size=str(len(data)),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    ]
    host.add("a/plain", COMMIT, source, data)
    for name, prefix in (("echo", "data/MESE"), ("part", "dicom/x/")):
        found = [path for path in scans if name in path]
        for path in found:
            voxels = open_set.digest(io.read(scans[path], affine="either"))
            rows.append(row(path, f"b/{name}", prefix, voxels=voxels, voxel_mm="0.900x0.800x3.300"))
        times = {"EchoTime": [9.5, 80], "EchoNumbers": [1, 8]} if name == "echo" else {}
        for i, path in enumerate(dicoms(tmp_path / name, [scans[path] for path in found], **times)):
            at = f"data/MESE_anon/{i}.MR.dcm" if name == "echo" else f"dicom/x/{i:08d}"
            host.add(f"b/{name}", COMMIT, at, path.read_bytes())
        host.add(f"b/{name}", COMMIT, f"{prefix}/README.md", b"not asked for")
        host.add(f"b/{name}", COMMIT, "elsewhere/0.dcm", b"not asked for")
    host.add("b/part", COMMIT, "dicom/x/LICENSE", b"no DICOM, but who knows")
    list_rows(tmp_path / "rows.csv", rows, monkeypatch)
    manifest = tmp_path / "manifest.csv"
    plain(manifest, rows, scans)
    return Made(rows, scans, manifest)


def plain(manifest: Path, rows: list[Row], scans: dict[str, Path]) -> None:
    """The same sources as `seran prepare` takes them."""
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "path", "contrast", "subject", "licence", "source_repository"])
        for r in rows:
            writer.writerow([r.split, scans[r.path], r.contrast, r.subject, r.licence, r.source_repository])


def run(host: Host, out: Path, *options: object, sources: Path | None = None) -> int:
    """`seran prepare open` with this server; requests are counted anew."""
    host.asked.clear()
    where = ["--sources", sources or out.parent / "sources", "--address", host.address]
    command = ["prepare", "open", out, *where, "--listings", f"{host.address}/repos/", *options]
    return cli.run([str(part) for part in command])


def same(a: Path, b: Path, scales: tuple[int, ...]) -> None:
    """Two prepared sets are equal but for the bytes of sources, which every program writes differently."""
    one, two = load_prepared(a), load_prepared(b)
    assert replace(one, root=b, volumes=[]) == replace(two, volumes=[])
    assert len(one.volumes) == len(two.volumes) > 0
    for u, v in zip(one.volumes, two.volumes, strict=True):
        np.testing.assert_allclose(u.spacing, v.spacing, rtol=1e-5)
        assert u.affine is not None
        assert v.affine is not None
        np.testing.assert_allclose(u.affine, v.affine, atol=1e-4)
        assert replace(u, sha256="", spacing=v.spacing, affine=v.affine) == replace(v, sha256="")
        for s in scales:
            np.testing.assert_array_equal(one.low(u, s), two.low(v, s))


@pytest.mark.parametrize("options", [[], ["--degradation", "td", "--no-fourier-crop"]])
def test_the_set_is_that_of_prepare(host: Host, made: Made, tmp_path: Path, options: list[str]) -> None:
    assert run(host, tmp_path / "set", "--scales", 2, 4, *options) == 0
    assert (
        cli.run(["prepare", str(made.manifest), str(tmp_path / "plain"), "--scales", "2", "4", *options]) == 0
    )
    same(tmp_path / "set", tmp_path / "plain", (2, 4))
    assert load_prepared(tmp_path / "set").volumes[0].sha256 == made.rows[0].sha256
    for path, scan in made.scans.items():
        np.testing.assert_allclose(
            nib.load(tmp_path / "sources" / path).affine, nib.load(scan).affine, atol=1e-4
        )
    asked = [path for path, _ in host.asked]
    assert not [path for path in asked if "README" in path or "elsewhere" in path]
    assert sum(path.startswith("/repos/") for path in asked) == 2, "a series is listed once"
    assert len(asked) == len(set(asked)) == 1 + (1 + 8) + (1 + 7 + 1)
    left = {
        p.relative_to(tmp_path / "sources").as_posix()
        for p in (tmp_path / "sources").rglob("*")
        if p.is_file()
    }
    assert left == set(made.scans), "files of series are removed"


def test_what_is_there_is_not_asked_for(host: Host, made: Made, tmp_path: Path) -> None:
    """Nor written to: a copy laid out as the list says, and the second run."""
    host.files.clear()
    before = {path: scan.stat().st_mtime_ns for path, scan in made.scans.items()}
    assert run(host, tmp_path / "set", "--scales", 2, sources=tmp_path / "original") == 0
    assert host.asked == []
    assert {path: scan.stat().st_mtime_ns for path, scan in made.scans.items()} == before


@pytest.mark.parametrize("path", ["train/plain.nii.gz", "val/echo-2.nii.gz"])
def test_a_different_file_is_named_and_kept(
    host: Host, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    scan = made.scans[path]
    scan.write_bytes(made.scans["test/part-1.nii.gz"].read_bytes())
    assert run(host, tmp_path / "set", sources=tmp_path / "original") == 2
    line = capsys.readouterr().err
    assert str(scan) in line
    assert "move it away" in line
    assert scan.read_bytes() == made.scans["test/part-1.nii.gz"].read_bytes()
    assert not (tmp_path / "set").exists()


def test_a_scan_with_other_voxel_sizes_is_refused(host: Host, made: Made, tmp_path: Path) -> None:
    scan = made.scans["val/echo-2.nii.gz"]
    nib.save(nib.Nifti1Image(nib.load(scan).get_fdata().astype(np.int16), oblique((0.9, 0.8, 0.3))), scan)
    assert run(host, tmp_path / "set", sources=tmp_path / "original") == 2


@pytest.mark.parametrize("name", ["/a/plain/", "/b/echo/"], ids=["file", "slice"])
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "expected sha"),
        (lambda data: data + b"x", "the server announces"),
        (lambda data: None, "404"),
    ],
    ids=["hash", "size", "missing"],
)
def test_what_the_server_sends_is_verified(
    host: Host,
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    spoil: Callable[[bytes], bytes | None],
    text: str,
) -> None:
    """A listing is answered properly, so that a slice differs from it; the next run has what came before."""
    url = next(path for path in host.files if re.match(f"{name}.*(nii.gz|/7.MR.dcm)", path))
    right, answer = host.files[url], host.answer
    host.answer = lambda path: spoil(right) if urllib.parse.unquote(path) == url else answer(path)
    assert run(host, tmp_path / "set", "--scales", 2) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert text in line
    assert not (tmp_path / "set").exists()
    first = {path for path, _ in host.asked if not path.startswith("/repos/")}
    host.answer = answer
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert {urllib.parse.unquote(path) for path, _ in host.asked if path in first} == {url}


@pytest.mark.parametrize("name", ["plain", "echo"])
def test_an_interrupted_download_is_continued(
    host: Host, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    url = next(path for path in host.files if re.match(f"/./{name}.*(nii.gz|/3.MR.dcm)", path))
    url = urllib.parse.quote(url)
    host.cut[url] = 1000
    assert run(host, tmp_path / "set") == 2
    assert "1000 of" in capsys.readouterr().err
    host.cut.clear()
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert [span for path, span in host.asked if path == url] == ["bytes=1000-"]


def test_an_interrupted_conversion_is_repeated(
    host: Host, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without downloading again, and nothing half-written takes the name of a scan."""
    right, calls = io.write, []

    def write(volume: Volume, path: Path) -> None:
        right(volume, path)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(io, "write", write)
    assert run(host, tmp_path / "set") == 130
    sources = tmp_path / "sources"
    assert sorted(p.name for p in sources.rglob("*.nii.gz")) == ["echo-1.nii.gz", "plain.nii.gz"]
    monkeypatch.setattr(io, "write", right)
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert [path for path, _ in host.asked if "/b/echo/" in path] == [
        f"/repos/b/echo/git/trees/{COMMIT}?recursive=1"
    ]


def entry(**values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The listing with other values in its last entry."""

    def change(tree: dict[str, Any]) -> dict[str, Any]:
        tree["tree"][-1] |= {"path": "data/MESE_anon/x.dcm"} | values
        return tree

    return change


@pytest.mark.parametrize(
    ("listing", "text"),
    [
        (entry(path="data/MESE/../../../x.dcm"), "path, size and SHA-1"),
        (entry(path="data/MESE/./x.dcm"), "path, size and SHA-1"),
        (entry(path="data/MESE//etc/x.dcm"), "path, size and SHA-1"),
        (entry(path="data/MESE/a\x1bb.dcm"), "path, size and SHA-1"),
        (entry(path="data/MESE/\ud800.dcm"), "path, size and SHA-1"),
        (entry(path=3), "expected a listing"),
        (entry(sha="../../../../../../../../../../../../tmp/x"), "path, size and SHA-1"),
        (entry(sha=None), "expected a listing"),
        (entry(size="9"), "path, size and SHA-1"),
        (entry(size=float("nan")), "path, size and SHA-1"),
        (entry(size=-1), "path, size and SHA-1"),
        (entry(size=1 << 40), "expected at most"),
        (lambda tree: tree | {"truncated": True}, "cuts it off"),
        (lambda tree: tree | {"tree": tree["tree"][:1]}, "the listing has none"),
        (lambda tree: {"message": "Not Found"}, "expected a listing"),
        (lambda tree: [], "expected a listing"),
        (lambda tree: b"<html>login</html>", "expected a listing"),
        (lambda tree: b"[" * 100_000, "expected a listing"),
        (lambda tree: b"\xff\xfe\x00", "expected a listing"),
    ],
)
def test_a_listing_is_not_trusted(
    host: Host, made: Made, tmp_path: Path, listing: Callable[[dict[str, Any]], object], text: str
) -> None:
    host.listing = listing
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=text) as caught:
        open_set.collect(tmp_path / "sources", host.address, f"{host.address}/repos")
    assert str(caught.value).isprintable()
    assert {p for p in tmp_path.rglob("*") if p.is_file()} - before == {
        tmp_path / "sources/train/plain.nii.gz"
    }
    assert len(host.asked) == 2, "nothing that it names is asked for"


def test_a_listing_without_end(
    host: Host, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_set, "LONGEST", 500)
    with pytest.raises(BadInput, match="expected at most 500 bytes"):
        open_set.collect(tmp_path / "sources", host.address, f"{host.address}/repos")


def test_a_link_is_not_followed(host: Host, made: Made, tmp_path: Path) -> None:
    host.listing = entry(mode="120000")
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert not [path for path, _ in host.asked if "x.dcm" in path]


def test_a_missing_slice_gives_no_scan(
    host: Host, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del host.files[f"/b/part/{COMMIT}/dicom/x/00000001"]
    assert run(host, tmp_path / "set") == 2
    line = capsys.readouterr().err
    assert "expected the voxels of test/part-1.nii.gz in a DICOM series of dicom/x, got others" in line
    assert [p.name for p in (tmp_path / "sources" / "test").iterdir()] == ["part-2.nii.gz"], (
        "what fits is kept"
    )


def test_a_slice_twice(host: Host, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal bytes are one file; another file with the same slice is refused."""
    data = host.files[f"/b/part/{COMMIT}/dicom/x/00000001"]
    host.add("b/part", COMMIT, "dicom/x/copy", data)
    again = tmp_path / "again.dcm"
    again.write_bytes(data)
    change(again, SOPInstanceUID="1.2.826.0.1.99")
    assert run(host, tmp_path / "first", "--scales", 2) == 0
    host.add("b/part", COMMIT, "dicom/x/again", again.read_bytes())
    assert run(host, tmp_path / "second", sources=tmp_path / "other") == 2
    assert "of the same series lies; remove one" in capsys.readouterr().err


def test_the_folder_whose_voxels_fit_is_taken(host: Host, made: Made, tmp_path: Path) -> None:
    """Where the first one is damaged; and the next has another series, too."""
    for path, data in list(host.files.items()):
        if "MESE_anon" in path:
            host.files[path.replace("MESE_anon", "MESE")] = data
            host.files[path] = data[:-50]
    other = dicoms(tmp_path / "other", [made.scans["test/part-1.nii.gz"]], SeriesInstanceUID=["1.2.3"])
    for i, path in enumerate(other):
        host.add("b/echo", COMMIT, f"data/MESE/other{i}.dcm", path.read_bytes())
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert cli.run(["prepare", str(made.manifest), str(tmp_path / "plain"), "--scales", "2"]) == 0
    same(tmp_path / "set", tmp_path / "plain", (2,))


def test_the_anonymised_twin_is_enough(host: Host, made: Made, tmp_path: Path) -> None:
    for path, data in list(host.files.items()):
        if "MESE_anon" in path:
            host.files[path.replace("MESE_anon", "MESE")] = data[:-50]
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    assert not [path for path, _ in host.asked if "/MESE/" in path]


def test_nothing_is_downloaded_for_settings_that_cannot_be(host: Host, made: Made, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert run(host, tmp_path / "set") == 2
    assert run(host, tmp_path / "other", "--scales", 5) == 2
    assert host.asked == []
    assert not (tmp_path / "sources").exists()


def test_the_digest_is_of_voxels_in_space() -> None:
    """The same for any order and direction of the axes, and for no other voxel."""
    scan = Volume(phantom((7, 5, 4)), oblique())
    flip = np.array([[0, 0, -1, 6], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    turned = Volume(np.transpose(scan.data[::-1], (1, 2, 0)), scan.affine @ flip)
    assert turned.data.shape == (5, 4, 7)
    assert open_set.digest(turned) == open_set.digest(scan)
    other = scan.data.copy()
    other[2, 3, 1] += 1
    assert open_set.digest(scan.on(other, scan.affine)) != open_set.digest(scan)
    empty = Volume(np.zeros((7, 5, 4), np.float32), oblique())
    assert open_set.digest(empty) == open_set.digest(empty.on(-empty.data, empty.affine))
    assert open_set.digest(empty) != open_set.digest(Volume(np.zeros((5, 7, 4), np.float32), oblique()))


def test_the_published_list() -> None:
    rows = open_set.rows()
    for edition, train in ((1, 38), (2, 46)):
        found = [r.split for r in open_set.rows(edition)]
        assert [found.count(s) for s in ("train", "val", "test")] == [train, 8, 15]
    assert len({r.path for r in rows}) == 69
    splits: dict[str, str] = {}
    for r in rows:
        assert splits.setdefault(r.subject, r.split) == r.split, "a subject is in one split"
        assert re.fullmatch(rf"{r.split}/[\w-]+\.(nii\.gz|nrrd)", r.path)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", r.source_repository)
        assert re.fullmatch("[0-9a-f]{40}", r.source_commit)
        assert re.fullmatch("[0-9a-f]{64}", r.voxels or r.sha256)
        assert bool(r.voxels) == bool(r.voxel_mm) == (not r.sha256) == (not r.size)
        assert r.licence
    assert sum(bool(r.voxels) for r in rows) == 6


def test_the_published_list_is_that_of_the_real_volumes(shared: Path) -> None:
    with (shared / "MANIFEST.csv").open(newline="") as file:
        known = list(csv.DictReader(file))
    names = ["split", "path", "contrast", "subject", "source_repository", "source_commit", "licence"]
    with (shared / "NATIVE.csv").open(newline="") as file:
        more = {k["path"]: k for k in csv.DictReader(file)}
    for r in open_set.rows()[len(known) :]:
        assert [getattr(r, n) for n in (*names, "sha256")] == [more[r.path][n] for n in (*names, "sha256")]
        assert files.sha256(shared / r.path) == r.sha256
        assert int(r.size) == (shared / r.path).stat().st_size
    rows = open_set.rows(1)
    assert [[getattr(r, name) for name in names] for r in rows] == [
        [k[name] for name in names] for k in known
    ]
    for r, k in zip(rows, known, strict=True):
        if r.voxels:
            assert r.voxel_mm == k["voxel_mm"]
        else:
            assert (r.sha256, r.source_path) == (k["sha256"], k["source_path"])
            assert int(r.size) == (shared / r.path).stat().st_size


def real(host: Host, shared: Path, folder: Path, rows: list[Row]) -> None:
    """Serve the real scans of these rows.

    Of the DICOM series only Papaya's files are at hand as they are. The others are written from the scans
    that were converted from them, with names as in the repositories.
    """
    written: dict[str, list[Path]] = {}
    for r in rows:
        if r.voxels:
            written.setdefault(r.source_repository, []).append(shared / r.path)
        else:
            host.add(r.source_repository, r.source_commit, r.source_path, (shared / r.path).read_bytes())
    for repository, scans in written.items():
        commit = next(r.source_commit for r in rows if r.source_repository == repository)
        if repository == "rii-mango/Papaya":
            paths = sorted((shared / "dicom" / "papaya_PDw_fse").iterdir())
            names = [f"tests/data/dicom/{path.name}" for path in paths]
        elif repository == "gattia/pymskt":
            paths = dicoms(folder / "knee", scans, EchoNumbers=[1, 8], EchoTime=[10, 80])
            names = [f"data/MESE_T2_dicom_data/E3655S8I{i + 1:03d}.MR.dcm" for i in range(len(paths))]
        else:
            paths = dicoms(folder / repository, scans)
            pattern = (
                "dicoms/N2D_{:04d}.dcm" if repository.startswith("datalad") else "dicom/adi_brain/36{:06d}"
            )
            names = [pattern.format(i + 1) for i in range(len(paths))]
        for name, path in zip(names, paths, strict=True):
            host.add(repository, commit, name, path.read_bytes())


def test_real_sources(host: Host, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Papaya's series as it is in the repository, and a file of every split."""
    wanted = re.compile(r"sub-(01|10|12)_inplaneT2|papaya")
    rows = [r for r in open_set.rows() if wanted.search(r.path)]
    assert {r.split for r in rows} == set(SPLITS)
    list_rows(tmp_path / "rows.csv", rows, monkeypatch)
    real(host, shared, tmp_path / "written", rows)
    assert run(host, tmp_path / "set", "--scales", 2) == 0
    plain(tmp_path / "manifest.csv", rows, {r.path: shared / r.path for r in rows})
    assert cli.run(["prepare", str(tmp_path / "manifest.csv"), str(tmp_path / "plain"), "--scales", "2"]) == 0
    same(tmp_path / "set", tmp_path / "plain", (2,))


@pytest.mark.slow
def test_series_with_a_gap_and_with_echoes(
    host: Host, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All real volumes that were converted from DICOM, in their real sizes."""
    rows = [r for r in open_set.rows() if r.voxels]
    list_rows(tmp_path / "rows.csv", rows, monkeypatch)
    real(host, shared, tmp_path / "written", rows)
    found = open_set.collect(tmp_path / "sources", host.address, f"{host.address}/repos")
    for source, r in zip(found, rows, strict=True):
        one, two = (io.read(path, affine="either") for path in (source.path, shared / r.path))
        np.testing.assert_array_equal(one.data, two.data)
        np.testing.assert_allclose(one.affine, two.affine, atol=2e-4)


@pytest.mark.slow
def test_the_whole_set(host: Host, shared: Path, tmp_path: Path) -> None:
    """All 61 scans, downloaded and converted, against `seran prepare` on the folder of the real volumes."""
    rows = open_set.rows(1)
    real(host, shared, tmp_path / "written", rows)
    assert run(host, tmp_path / "set", "--scales", 4, "--edition", 1) == 0
    assert cli.run(["prepare", str(shared), str(tmp_path / "plain"), "--scales", "4"]) == 0
    same(tmp_path / "set", tmp_path / "plain", (4,))
