"""The page in `web/`: its code against the package, in Node; what serves it; and all of it in a browser."""

import functools
import http.client
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files, grid
from seran.apps import app
from seran.job import record
from seran.sharpen import Normalisation
from tests import browser, web_golden

ROOT = Path(__file__).parents[1]
BUILT = (app.PAGE / "index.html").is_file()
built = pytest.mark.skipif(not BUILT, reason="no page; `make web` builds it, with npm")


def test_the_golden_results_are_those_of_this_version() -> None:
    """`python -m tests.web_golden` writes them anew."""
    made = json.loads(json.dumps(web_golden.golden()))
    known = json.loads(web_golden.GOLDEN.read_text())
    for kind in ("scans", "refused"):
        assert [one["name"] for one in made[kind]] == [one["name"] for one in known[kind]]
    for one, other in zip(made["scans"], known["scans"], strict=True):
        assert one == other, one["name"]


def test_the_page_computes_as_the_package_does() -> None:
    if shutil.which("node") is None:
        pytest.skip("there is no node here")
    done = subprocess.run(
        ["node", "--test", "web/test/"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


@contextmanager
def served(made: http.server.ThreadingHTTPServer) -> Iterator[int]:
    """The port of a server that runs."""
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    try:
        yield made.server_port
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page of two files in place of the built one, and a file beside it."""
    folder = tmp_path / "page"
    (folder / "core").mkdir(parents=True)
    policy = '<meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'
    (folder / "index.html").write_text(policy)
    (folder / "core" / "a.js").write_text("a")
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(app, "PAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("path", "host", "status", "kind"),
    [
        ("/", "127.0.0.1", 200, "text/html; charset=utf-8"),
        ("/core/a.js?v=1", "localhost", 200, "text/javascript; charset=utf-8"),
        ("/../secret", "127.0.0.1", 404, None),
        ("/core", "127.0.0.1", 404, None),
        ("/", "attacker.example", 403, None),
    ],
)
def test_only_files_of_the_page_and_only_to_this_machine(
    page: Path, path: str, host: str, status: int, kind: str | None
) -> None:
    with served(app.server()) as port:
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        asked.request("GET", path, headers={"Host": f"{host}:{port}"})
        answer = asked.getresponse()
        answer.read()
        asked.close()
    assert answer.status == status
    if kind:
        assert answer.getheader("Content-Type") == kind
        assert answer.getheader("Content-Security-Policy") == "default-src 'self'"
        assert answer.getheader("Cross-Origin-Opener-Policy") == "same-origin"
        assert answer.getheader("Cross-Origin-Embedder-Policy") == "require-corp"


def test_without_a_page_or_a_port(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(app.server()) as port:
        assert cli.run(["app", "--no-open", "--port", str(port)]) == 2
    assert f"--port {port}: " in capsys.readouterr().err
    (page / "index.html").unlink()
    assert cli.run(["app", "--no-open"]) == 2
    assert "the page is not in this installation; `make web`" in capsys.readouterr().err


@built
def test_the_command_serves_until_it_is_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "seran", "app", "--no-open"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout
        assert running.stderr
        assert running.stdout.readline().startswith("http://127.0.0.1:")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        assert (running.stdout.read(), running.stderr.read()) == ("ended\n", "")


@built
def test_what_is_built() -> None:
    """Nothing is asked of another address, and all that is kept for use without a network is there."""
    found = {p.relative_to(app.PAGE).as_posix(): p for p in app.PAGE.rglob("*") if p.is_file()}
    assert sum(path.stat().st_size for path in found.values()) < 25e6
    worker = found["sw.js"].read_text()
    kept = json.loads(worker.partition("FILES = ")[2].partition(";\n")[0])
    assert {*kept} == {"./", *found} - {"sw.js"}
    page = found["index.html"].read_text()
    assert "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'" in page
    assert "http" not in page.replace("http-equiv", "")
    for name in [*found]:
        if name.startswith("core/"):
            assert found[name].read_bytes() == (ROOT / "web" / name).read_bytes(), "an old page; `make web`"


class Plain(http.server.SimpleHTTPRequestHandler):
    """A web server that knows nothing of the page."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@built
@pytest.mark.slow
def test_in_a_browser(shared: Path, tmp_path: Path) -> None:
    """From any web server, then without one: isolated, with threads, the same voxels as the command."""
    browser.needed()
    scan, wanted = tmp_path / "scan.nii.gz", tmp_path / "wanted.nii.gz"
    real = nib.load(shared / "test" / "ds000011_sub-12_inplaneT2.nii.gz")
    nib.save(real.slicer[:, :, 12:16], scan)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Plain, directory=str(app.PAGE))
    )
    status, work = (
        "document.getElementById('status').textContent",
        "document.getElementById('work').className",
    )
    with browser.browser(tmp_path, (1280, 900)) as window:
        with served(server) as port:
            address = f"http://127.0.0.1:{port}/"
            window.open(address)
            window.wait(f"crossOriginIsolated && document.body.dataset.kept && {status} === 'Ready.'", 60)
        window.log("browser")
        window.open(address)  # of a server that is gone
        window.wait(f"crossOriginIsolated && {status} === 'Ready.'", 60)
        assert "WebAssembly" in window.run("return document.getElementById('engine').textContent")
        window.give("file", scan)
        window.wait(f"{status}.startsWith('Slice')", 60)
        window.run("document.getElementById('cancel').click()")
        assert window.run(f"return {status}") == "Cancelled."
        window.give("file", scan)
        window.wait(f"document.body.dataset.done || {work} === 'failed'", 120)
        assert window.run(f"return {status}").startswith("Done in "), window.run(f"return {status}")
        image, stated = window.saved("scan_sharp.nii.gz"), window.saved("scan_sharp.json")
        severe = [e["message"] for e in window.log("browser") if e["level"] == "SEVERE"]
        assert all("sw.js" in text for text in severe), "all but the look for a newer version"
        assert [u for u in window.requests() if not u.startswith((address, "data:", "blob:"))] == []
        series(window, shared / "dicom" / "dcm_qa_decubitus_HFS_T1w")
    made = record.read(image)
    assert made is not None
    assert made.input_sha256 == files.sha256(scan)
    assert json.loads(stated.read_text())["WeightsSHA256"] == made.weights_sha256
    command = ["upscale", scan, wanted, "--acquisition", "bicubic", "--method", made.method]
    assert cli.run([*map(str, command), "--precision", "f32", "--strict", "off"]) == 0
    found, known = nib.load(image), nib.load(wanted)
    gain = Normalisation.of(np.moveaxis(real.get_fdata(dtype=np.float32), 2, 0)).gain
    assert np.abs(found.get_fdata() - known.get_fdata()).max() < 1e-3 * gain
    one, other = (grid.corners(x.shape, x.affine) for x in (found, known))
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert found.header.binaryblock == known.header.binaryblock


def series(window: browser.Browser, folder: Path) -> None:
    """The folder of a series is read, and its first slice made."""
    status = "document.getElementById('status').textContent"
    window.run(f"{status} = ''")  # what was said before may look like an error, too
    window.give("folder", folder)
    window.wait(f"/^Slice [1-9]|^[A-Z].*:/.test({status})", 120)
    assert window.run(f"return {status}").startswith("Slice"), window.run(f"return {status}")
    window.run("document.getElementById('cancel').click()")
