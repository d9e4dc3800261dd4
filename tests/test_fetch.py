import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seran.data import fetch as module
from seran.errors import BadInput

DATA = np.random.default_rng(0).bytes(900_007)
SIZE = len(DATA)
SHA256 = hashlib.sha256(DATA).hexdigest()
CUT = 300_000
STALL = 15.0

Answer = Callable[["Handler"], None]


def fetch(*args: Any, retries: int = module.RETRIES, **options: Any) -> Path:
    """Download with another number of retries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RETRIES", retries)
        return module.fetch(*args, **options)


class Handler(BaseHTTPRequestHandler):
    """Answers as the server's list says, and properly when that is used up."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        """Note the range and answer."""
        self.server.ranges.append(self.headers["Range"])
        answer = self.server.answers.pop(0) if self.server.answers else send()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # a client that was killed or has seen enough
            answer(self)

    def begin(self) -> int:
        """First byte of the range asked for."""
        return int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "bytes=0-")[1])

    def log_message(self, *args: object) -> None:
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """On a free port of this machine; keeps the range of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.answers: list[Answer] = []
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/ixi.tar"


def send(stop: int = SIZE, ranges: bool = True, content_range: str = "right", stall: bool = False) -> Answer:
    """Send the file up to byte ``stop``, then close the connection, or ``stall`` and keep it open."""

    def answer(handler: Handler) -> None:
        begin = handler.begin() if ranges else 0
        partly = ranges and handler.headers["Range"]
        handler.send_response(206 if partly else 200)
        handler.send_header("Content-Length", str(SIZE - begin))
        if partly and content_range:
            right = f"bytes {begin}-{SIZE - 1}/{SIZE}"
            handler.send_header("Content-Range", right if content_range == "right" else content_range)
        handler.end_headers()
        handler.wfile.write(DATA[begin:stop])
        if stall:
            handler.server.released.wait(STALL)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Refuse, redirect, or send something else."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"sorry")

    return answer


def chunked(data: bytes, end: bytes = b"0\r\n\r\n") -> Answer:
    """Send without saying how much it will be."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n%s" % (len(data), data, end))

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, listed and not made."""
    made: list[float] = []
    monkeypatch.setattr(module, "sleep", made.append)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ixi.tar"


@pytest.fixture
def part(path: Path) -> Path:
    return path.with_name(".ixi.tar.part")


def arrived(path: Path) -> None:
    """The file is right and alone in its folder."""
    assert path.read_bytes() == DATA
    assert list(path.parent.iterdir()) == [path]


def refused(server: Server, path: Path, text: str, url: str = "", retries: int = 2) -> str:
    """The message of a download that has to fail."""
    with pytest.raises(BadInput, match=text) as caught:
        fetch(url or server.url, path, SIZE, SHA256, retries=retries)
    assert not path.exists()
    return str(caught.value)


def child(server: Server, path: Path, before: str = "") -> "subprocess.Popen[str]":
    code = f"""
from pathlib import Path
from seran.errors import BadInput
from seran.data import fetch
fetch.RETRIES = 0
{before}
try:
    fetch.fetch({server.url!r}, Path({str(path)!r}), {SIZE}, {SHA256!r})
except BadInput as error:
    print(error)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_complete(server: Server, path: Path, waits: list[float]) -> None:
    seen: list[int] = []
    assert fetch(server.url, path, SIZE, SHA256.upper(), progress=seen.append) == path
    arrived(path)
    assert (server.ranges, waits) == ([None], [])
    assert seen == sorted(set(seen))
    assert seen[-1] == SIZE


def test_a_lost_connection_is_resumed(server: Server, path: Path, waits: list[float]) -> None:
    """One retry is enough for any number of losses, as long as each attempt brings something."""
    server.answers = [send(CUT), send(CUT + 1), send(2 * CUT)]
    seen: list[int] = []
    fetch(server.url, path, SIZE, SHA256, retries=1, progress=seen.append)
    arrived(path)
    assert server.ranges == [None, f"bytes={CUT}-", f"bytes={CUT + 1}-", f"bytes={2 * CUT}-"]
    assert waits == [1, 1, 1]
    assert seen == sorted(set(seen))
    assert {CUT, CUT + 1, 2 * CUT, SIZE} <= set(seen)


def test_the_next_call_resumes(server: Server, path: Path, part: Path) -> None:
    server.answers = [send(CUT)]
    text = refused(server, path, "ended early", retries=0)
    assert f"{CUT} of {SIZE} bytes are kept, and the same command continues" in text
    assert part.read_bytes() == DATA[:CUT]
    seen: list[int] = []
    fetch(server.url, path, SIZE, SHA256, retries=0, progress=seen.append)
    arrived(path)
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert CUT in seen, "what is there counts from the start"
    assert min(seen) > 0


def test_a_server_that_ignores_ranges(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [send(CUT + 1, ranges=False), send(ranges=False)]
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)
    assert server.ranges == [f"bytes={CUT}-", f"bytes={CUT + 1}-"]


def test_starting_over_for_ever_ends(server: Server, path: Path, part: Path, waits: list[float]) -> None:
    """Only more than there ever was counts as progress; what is kept is what came last."""
    part.write_bytes(DATA[: 2 * CUT])
    server.answers = [send(CUT, ranges=False), send(CUT - 1, ranges=False)] * 9
    refused(server, path, f"{CUT - 1} of {SIZE}", retries=3)
    assert part.read_bytes() == DATA[: CUT - 1]
    assert waits == [1, 2, 4]
    assert len(server.ranges) == 4


@pytest.mark.parametrize(
    "answer",
    [
        send(content_range=""),
        send(content_range=f"bytes 0-{SIZE - 1}/{SIZE}"),
        send(content_range=f"bytes {CUT + 1}-{SIZE - 1}/{SIZE}"),
        send(content_range="nonsense"),
        status(416, Content_Range=f"bytes */{SIZE}"),
    ],
    ids=["none", "from zero", "next byte", "nonsense", "416"],
)
def test_a_wrong_range_starts_over(server: Server, path: Path, part: Path, answer: Answer) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [answer]
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [f"bytes={CUT}-", None]


def test_a_range_of_unknown_total(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [send(content_range=f"bytes {CUT}-{SIZE - 1}/*")]
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [f"bytes={CUT}-"]


def test_a_complete_part_needs_no_request(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA)
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)
    assert server.ranges == []


def test_a_part_that_is_too_long_is_discarded(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA + b"x")
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [None]


def test_a_wrong_hash(server: Server, path: Path, part: Path) -> None:
    """The part began as something else: removed, and the next call is right."""
    part.write_bytes(b"x" + DATA[1:CUT])
    wrong = hashlib.sha256(b"x" + DATA[1:]).hexdigest()
    text = refused(server, path, "expected sha256")
    assert SHA256 in text
    assert wrong in text
    assert not part.exists()
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)
    assert server.ranges == [f"bytes={CUT}-", None]


def test_git_hashes_a_blob(server: Server, path: Path, part: Path) -> None:
    """As ``git hash-object`` does: the digest of a file as a repository lists it."""
    name = hashlib.sha1(b"blob %d\0" % SIZE + DATA).hexdigest()
    part.write_bytes(DATA[:CUT])
    fetch(server.url, path, SIZE, name)
    arrived(path)
    assert fetch(server.url, path, SIZE, name) == path
    path.write_bytes(b"x" + DATA[1:])
    with pytest.raises(BadInput, match=f"expected sha1 {name}"):
        fetch(server.url, path, SIZE, name)
    path.unlink()
    server.answers = [chunked(b"x" + DATA[1:])]
    refused_name = hashlib.sha1(b"blob %d\0x" % SIZE + DATA[1:]).hexdigest()
    with pytest.raises(BadInput, match=f"expected sha1 {name}, got {refused_name}"):
        fetch(server.url, path, SIZE, name)
    assert not part.exists()


def test_reading_what_nobody_knows_the_size_of(server: Server, waits: list[float]) -> None:
    server.answers = [status(503, Retry_After="7"), send(CUT), chunked(DATA[:CUT], end=b""), chunked(DATA)]
    assert module.read(server.url, SIZE) == DATA
    assert waits == [7, 2, 4]
    server.answers = [chunked(DATA)]
    with pytest.raises(BadInput, match=f"at most {SIZE - 1} bytes"):
        module.read(server.url, SIZE - 1)
    server.answers = [send(CUT)] * 6
    with pytest.raises(BadInput, match="ended early; run the same command again"):
        module.read(server.url, SIZE)
    server.answers = [status(403)]
    with pytest.raises(BadInput, match="403"):
        module.read(server.url, SIZE)
    with pytest.raises(BadInput, match="an address must begin with"):
        module.read("file:///etc/passwd", SIZE)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, path: Path, part: Path, code: int, waits: list[float]) -> None:
    server.answers = [status(code)] * 9
    text = refused(server, path, f"{code} .*; open it in a browser")
    assert server.url in text
    assert (len(server.ranges), waits) == (1, [])
    assert not part.exists()
    part.write_bytes(DATA[:CUT])
    refused(server, path, str(code))
    assert part.read_bytes() == DATA[:CUT]


def test_a_busy_server(server: Server, path: Path, waits: list[float]) -> None:
    """Waits grow unless the server says how long, and what it says has a limit."""
    soon = formatdate(time.time() + 50, usegmt=True)
    server.answers = [
        status(503, Retry_After="7"), status(503, Retry_After="3600"), status(429, Retry_After=soon),
        status(500), status(503, Retry_After="nonsense"), status(502, Retry_After="1"),
    ]  # fmt: skip
    fetch(server.url, path, SIZE, SHA256, retries=6)
    arrived(path)
    assert waits == [7, 120, pytest.approx(49.5, abs=1.5), 8, 16, 32]
    assert len(server.ranges) == 7


def test_a_busy_server_stays_busy(server: Server, path: Path, part: Path, waits: list[float]) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [status(503)] * 20
    refused(server, path, f"503 .*{CUT} of {SIZE} bytes are kept, and the same command continues", retries=3)
    assert server.ranges == [f"bytes={CUT}-"] * 4
    assert waits == [1, 2, 4]
    assert part.read_bytes() == DATA[:CUT]


def test_nobody_answers(path: Path, part: Path, waits: list[float]) -> None:
    with Server() as server:
        pass
    refused(server, path, "refused.*0 of", retries=2)
    assert waits == [1, 2]
    assert not part.exists()


def test_too_many_bytes(server: Server, path: Path, part: Path) -> None:
    server.answers = [chunked(DATA + b"x")]
    refused(server, path, f"expected {SIZE} bytes, the server sends more")
    assert not part.exists()
    part.write_bytes(DATA[:CUT])
    server.answers = [send(content_range=f"bytes {CUT}-{SIZE}/{SIZE + 1}")]
    refused(server, path, f"expected {SIZE} bytes, the server announces {SIZE + 1}")
    assert part.read_bytes() == DATA[:CUT]


def test_never_more_bytes_on_disk(server: Server, path: Path) -> None:
    """Were more written than there should be, the kernel would complain first."""
    server.answers = [chunked(DATA + DATA)]
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE}, {SIZE}))"
    line, _ = child(server, path, before=limit).communicate(timeout=20)
    assert "the server sends more" in line


def test_a_login_page_costs_nothing(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [status(200)]
    refused(server, path, f"expected {SIZE} bytes, the server announces 5;")
    assert part.read_bytes() == DATA[:CUT]


def test_an_unannounced_length(server: Server, path: Path, waits: list[float]) -> None:
    """Chunks that end too early are continued; an end that is lost does not matter."""
    server.answers = [chunked(DATA[:CUT]), chunked(DATA, end=b"")]
    fetch(server.url, path, SIZE, SHA256, retries=1)
    arrived(path)
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert waits == [1]


def test_the_right_file_makes_no_request(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And needs no permission to write beside it."""
    path.write_bytes(DATA)
    monkeypatch.setattr(fcntl, "flock", lambda *args: pytest.fail("a lock"))
    assert fetch(server.url, path, SIZE, SHA256) == path
    assert server.ranges == []


@pytest.mark.parametrize("data", [DATA[:-1], b"x" + DATA[1:]], ids=["size", "sha256"])
def test_a_wrong_file_is_kept(server: Server, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(BadInput, match="move it away") as caught:
        fetch(server.url, path, SIZE, SHA256)
    expected = (SIZE, len(data)) if len(data) < SIZE else (SHA256, hashlib.sha256(data).hexdigest())
    for thing in (path, *expected):
        assert str(thing) in str(caught.value)
    assert path.read_bytes() == data
    assert server.ranges == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:,x",
        "/etc/passwd",
        "http:///x",
        "http://a b/",
        "https://",
    ],
)
def test_a_refused_address(server: Server, path: Path, url: str) -> None:
    refused(server, path, "an address must begin with", url=url)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("url", ["http://[/x", "http://127.0.0.1:port/x", "http://a..b/x"])
def test_an_address_that_cannot_be(server: Server, path: Path, url: str, waits: list[float]) -> None:
    refused(server, path, "check the address", url=url)
    assert waits == []


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("file:///etc/passwd", "302 .*not allowed"),
        ("data:,x", "302 .*not allowed"),
        ("ftp://127.0.0.1/x", "ftp"),
    ],
)
def test_a_refused_redirect(
    server: Server, path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, target: str, text: str
) -> None:
    monkeypatch.setenv("ftp_proxy", server.url)
    server.answers = [status(302, Location=target)]
    refused(server, path, text)
    assert (len(server.ranges), waits) == (1, [])


def test_a_redirect_keeps_the_range(server: Server, path: Path, part: Path) -> None:
    part.write_bytes(DATA[:CUT])
    server.answers = [status(302, Location="/elsewhere")]
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [f"bytes={CUT}-"] * 2


def test_a_server_that_stops_sending(
    server: Server, path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    server.answers = [send(CUT, stall=True)]
    began = time.monotonic()
    fetch(server.url, path, SIZE, SHA256, retries=1)
    assert 0.3 <= time.monotonic() - began < STALL
    arrived(path)
    assert server.ranges == [None, f"bytes={CUT}-"]
    assert waits == [1]


def drip(start: bytes, pause: float = 0.05) -> Answer:
    """Send something, then a byte now and then, so that no timeout of a socket passes."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(start)
        while not handler.server.released.wait(pause):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return answer


HEADERS = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % SIZE
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n5;"


@pytest.mark.parametrize("start", [b"", HEADERS, HEADERS + LENGTH, HEADERS + CHUNKS])
def test_a_server_that_never_ends(
    server: Server, path: Path, part: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """In its status, a header, the file or the length of a chunk: there is an end; what came is kept."""
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "SLOWEST", SIZE)
    server.answers = [drip(start)] * 2
    began = time.monotonic()
    refused(server, path, "not complete after 1 s; what came is kept, and the same command continues")
    assert part.exists() == (start == HEADERS + LENGTH)
    with pytest.raises(BadInput, match="not complete after 0 s; run the same command again later"):
        module.read(server.url, 1000)
    assert time.monotonic() - began < 5


def test_a_planted_name_is_not_written_to(server: Server, path: Path, part: Path, tmp_path: Path) -> None:
    """A link, also a hard one, a pipe, a folder."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    plants: list[Callable[[], None]] = [
        lambda: part.symlink_to(victim),
        lambda: part.symlink_to(tmp_path / "nothing"),
        lambda: part.hardlink_to(victim),
        lambda: os.mkfifo(part),
        part.mkdir,
    ]
    for plant in plants:
        plant()
        refused(server, path, r"\.part: expected a file of its own, got a link or no file; remove it")
        part.rmdir() if part.is_dir() else part.unlink()
        assert victim.read_bytes() == b"precious"
        assert sorted(tmp_path.iterdir()) == [victim]
    assert server.ranges == []


def test_kill_and_a_second_process(server: Server, path: Path, part: Path) -> None:
    """While one downloads, another is refused; after kill -9 the same call continues."""
    server.answers = [send(CUT, stall=True)]
    process = child(server, path)
    try:
        until(lambda: part.exists() and part.stat().st_size == CUT)
        refused(server, path, "another process is downloading it")
        assert part.read_bytes() == DATA[:CUT]
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    server.released.set()
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [None, f"bytes={CUT}-"]


def test_ctrl_c_keeps_what_came(server: Server, path: Path, part: Path) -> None:
    def interrupt(have: int) -> None:
        if have >= CUT:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, path, SIZE, SHA256, progress=interrupt)
    kept = part.read_bytes()
    assert len(kept) >= CUT
    assert kept == DATA[: len(kept)]
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges[1:] == ([f"bytes={len(kept)}-"] if len(kept) < SIZE else [])


@pytest.mark.parametrize("room", [CUT + 7, SIZE - 1])
def test_a_full_disk_keeps_what_came(server: Server, path: Path, part: Path, room: int) -> None:
    """The kernel refuses to let the file grow, in the middle of a block; one line, and no further request."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))"
    line, _ = child(server, path, before=limit).communicate(timeout=20)
    assert line.startswith(f"{path}: ")
    assert "File too large" in line or "No space" in line
    assert "the same command continues" in line
    assert len(line.splitlines()) == 1
    assert part.read_bytes() == DATA[:room]
    fetch(server.url, path, SIZE, SHA256, retries=0)
    arrived(path)
    assert server.ranges == [None, f"bytes={room}-"]


def test_flushed_before_it_is_named(
    server: Server, path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes] = []

    def fsync(number: int) -> None:
        assert os.path.samestat(os.fstat(number), part.stat())
        flushed.append(part.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    fetch(server.url, path, SIZE, SHA256)
    assert flushed == [DATA]


def test_no_folder(server: Server, path: Path) -> None:
    refused(server, path / "no" / "folder", "No such file or directory.*folder")
    assert server.ranges == []


def test_no_locks_on_this_file_system(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)


def test_no_locks_on_this_system(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)


@pytest.mark.parametrize("renamed", [True, False], ids=["renamed", "removed"])
def test_a_lock_that_came_too_late(
    server: Server, path: Path, part: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """Another process finishes between opening the part and locking it: its file is not written to."""

    def flock(*args: object) -> None:
        if renamed:
            part.replace(path)
        else:
            part.unlink()

    part.write_bytes(DATA)
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BadInput, match="another process"):
        fetch(server.url, path, SIZE, SHA256)
    assert server.ranges == []
    assert path.exists() == renamed


def test_another_process_was_faster(
    server: Server, path: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finishes after the first look and before the part is opened: its file is verified and returned."""
    monkeypatch.setattr(fcntl, "flock", lambda *args: path.write_bytes(DATA))
    fetch(server.url, path, SIZE, SHA256)
    arrived(path)
    assert server.ranges == []


def test_import_is_light_and_offline() -> None:
    hook = "import sys; sys.addaudithook(lambda name, args: name.startswith('socket.') and print(name))"
    code = f"{hook}; import seran.data.fetch; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
