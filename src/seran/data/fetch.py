"""Downloading files of known size and digest from archives that are large, slow and often interrupted.

What has arrived is kept beside the file, in the hidden ``.NAME.part``; the same call continues there after
Ctrl-C, a lost connection or a full disk, and the file gets its name when its hash has been verified.
"""

import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from time import monotonic, sleep, time
from urllib import request
from urllib.error import HTTPError, URLError

from seran import __version__, files
from seran.errors import BadInput

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RETRIES = 5  # attempts in a row that may bring nothing new, after the first
TIMEOUT = 60.0  # seconds without a byte
PATIENCE, SLOWEST = 600.0, 20_000  # seconds that a file may take at least; bytes a second of a larger one
LONGEST = 120.0  # seconds between two attempts, whatever the server asks for
AGAIN = "run the same command again"
CHANGED = "the file there has changed, or the address leads to something else (a login page?)"


def fetch(
    url: str, path: Path, size: int, digest: str, progress: Callable[[int], object] = lambda have: None
) -> Path:
    """Download ``url`` to ``path`` unless it is there; return ``path``, verified.

    Args:
        url: http or https; redirects to anything else are refused.
        path: where the file goes, in a folder that exists.
        size: bytes.
        digest: sha256 in hex; of 40 digits, git's SHA-1 of a blob, as listings of repositories have it.
        progress: is told how many bytes are there, again and again; fewer when the server starts over.

    Raises:
        BadInput: for a wrong file, address or answer, none, a full disk, another process at the same file, or
            a server that takes too long, however steadily it sends.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with nullcontext() if path.exists() else _alone(part):
            if path.exists():  # another process may have finished it a moment ago
                if wrong := _fault(path, size, digest):
                    raise BadInput(f"{path}: {wrong}; move it away and {AGAIN} to download it")
                return path
            _download(url, part, size, progress)
            if wrong := _fault(part, size, digest):
                part.unlink()
                text = f"{wrong}; what came is removed: {AGAIN}, and if that does not help, {CHANGED}"
                raise BadInput(f"{url}: {text}")
            return part.replace(path)
    except BlockingIOError:
        raise BadInput(f"{path}: another process is downloading it; wait for it or stop it") from None
    except OSError as error:
        mended = "once that is mended (room, permission, folder), the same command continues where it stopped"
        raise BadInput(f"{path}: {error.strerror or error}; {mended}") from error


def read(url: str, limit: int) -> bytes:
    """What ``url`` sends, of unknown size and digest; `BadInput` if that is more than ``limit`` bytes."""
    data = b""
    for begin, block in _timely(url, 0, None, limit):
        data = data[:begin] + block
        if len(data) > limit:
            raise BadInput(f"{url}: expected at most {limit} bytes, the server sends more")
    return data


def _fault(path: Path, size: int, digest: str) -> str:
    """What is wrong with a file, in words; nothing, if it is the one that is expected."""
    if (length := path.stat().st_size) != size:
        return f"expected {size} bytes, got {length}"
    kind, before = ("sha1", b"blob %d\0" % size) if len(digest) == 40 else ("sha256", b"")
    got = files.digest(path, kind, before)
    return "" if got == digest.lower() else f"expected {kind} {digest}, got {got}"


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Make ``part`` and lock it, or raise `BlockingIOError`; leave it behind only if something is in it."""
    with _opened(part) as file:
        if fcntl is None:  # no lock, and an open file could not be renamed; the hash still decides
            file.close()
        else:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:  # of a network file system without locks; the hash still decides
                if isinstance(error, BlockingIOError):
                    raise
            if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
                raise BlockingIOError  # who held the lock has renamed or removed what was opened here
        try:
            yield
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()


def _opened(part: Path) -> io.FileIO:
    """A file to append to, made if it is not there; `BadInput` if the name leads to another's."""
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]  # where there are any
    told = f"{part}: expected a file of its own, got a link or no file; remove it"
    try:
        number = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND | sum(flags), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise BadInput(told) from error
        raise
    file, status = io.FileIO(number, "ab"), os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        file.close()
        raise BadInput(told)
    return file


def _download(url: str, part: Path, size: int, progress: Callable[[int], object]) -> None:
    """Fill ``part`` up to ``size`` bytes, from what it holds on."""
    with _opened(part) as file:
        have = file.tell() if file.tell() <= size else file.truncate(0)
        progress(have)
        for begin, block in _timely(url, have, size, size):
            file.truncate(begin)  # to less than there is where the server starts over
            if begin + len(block) > size:
                file.truncate(0)
                raise BadInput(f"{url}: expected {size} bytes, the server sends more; {CHANGED}")
            while block:  # a disk that is nearly full takes less than it is given
                block = block[file.write(block) :]
            progress(file.tell())
        os.fsync(file.fileno())


def _timely(url: str, have: int, size: int | None, most: int) -> Iterator[tuple[int, bytes]]:
    """`_blocks` in a thread of its own, until they have taken too long for ``most`` bytes."""
    come: Queue[tuple[int, bytes] | BaseException | None] = Queue(1)
    stopped, end = Event(), monotonic() + max(PATIENCE, most / SLOWEST)

    def work() -> None:
        try:
            for found in _blocks(url, have, size):
                come.put(found)
                if stopped.is_set():
                    return
            come.put(None)
        except BaseException as error:  # it is raised where somebody waits
            come.put(error)

    Thread(target=work, daemon=True).start()
    try:
        while found := come.get(timeout=max(0.0, end - monotonic())):
            if isinstance(found, BaseException):
                raise found
            yield found
    except Empty:
        kept = "what came is kept, and the same command continues there" if size else f"{AGAIN} later"
        raise BadInput(f"{url}: not complete after {max(PATIENCE, most / SLOWEST):.0f} s; {kept}") from None
    finally:
        stopped.set()
        with suppress(Empty):  # who waits to hand over a block sees that nobody wants it
            come.get_nowait()


def _blocks(url: str, have: int, size: int | None) -> Iterator[tuple[int, bytes]]:
    """What comes from byte ``have`` on, at once, and where it begins: at 0 when everything comes again."""
    if not re.fullmatch(r"https?://[^/?#\s][!-~]*", url, re.IGNORECASE):
        raise BadInput(f"{url}: an address must begin with https:// or http://")
    most, failures = have, 0
    while have != size:
        headers = {"User-Agent": f"seran/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
        try:
            asked = request.Request(url, headers=headers)
            with request.build_opener(_NoFTP).open(asked, timeout=TIMEOUT) as response:
                total, span = response.length, response.headers.get("Content-Range", "").strip()
                if not have or response.status != 206:
                    have = 0
                elif found := re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", span):
                    total = None if found[1] == "*" else int(found[1])
                else:
                    have = 0
                    continue
                if size and total not in (None, size):
                    raise BadInput(f"{url}: expected {size} bytes, the server announces {total}; {CHANGED}")
                while block := response.read1(1 << 18):
                    yield have, block
                    have += len(block)
                if response.length or have < (size or 1):
                    raise ConnectionError("the connection ended early")
                return
        except (OSError, HTTPException, ValueError) as error:
            if have == size:
                return
            if have and isinstance(error, HTTPError) and error.code == 416:  # it cannot continue there
                have = 0
                continue
            text, wait = _trouble(url, error)
            have = have if size else 0  # what has no digest is not continued
            if have > most:
                most, failures = have, 0
            if failures >= RETRIES:
                kept = f"{have} of {size} bytes are kept, and the same command continues there"
                raise BadInput(f"{url}: {text}; {kept if size else AGAIN + ' later'}") from None
            sleep(min(LONGEST, max(wait, 2.0**failures)))
            failures += 1


def _trouble(url: str, error: Exception) -> tuple[str, float]:
    """What went wrong, and how many seconds the server asks to wait; `BadInput` if it will not pass."""
    if isinstance(error, HTTPError):
        error.close()
        text = f"the server answers {error.code} {error.reason}"
        if error.code != 429 and error.code < 500:
            raise BadInput(f"{url}: {text}; open it in a browser: it may have moved or need a login")
        retry_after = error.headers.get("Retry-After", "")
        if retry_after.strip().isdecimal():
            return text, float(retry_after)
        with suppress(TypeError, ValueError):
            return text, parsedate_to_datetime(retry_after).timestamp() - time()
        return text, 0.0
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, (str, ValueError, InvalidURL)):  # no such scheme, host, port or certificate
        raise BadInput(f"{url}: {reason}; check the address and the proxy, if there is one")
    return str(reason), 0.0


class _NoFTP(request.BaseHandler):
    """Servers may redirect to FTP, and a proxy could serve it."""

    handler_order = 0  # before the proxies

    def ftp_open(self, asked: request.Request) -> None:
        raise URLError(f"redirected to {asked.full_url}")
