"""Downloading files of known size and digest from archives that are large, slow and often interrupted.

What has arrived is kept beside the file, in the hidden ``.NAME.part``; the same call continues there after
Ctrl-C, a lost connection or a full disk. The file gets its name only when every byte has been verified, so
whether what a server sends after a pause is still the same file needs no other check than the hash.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse, InvalidURL
from io import FileIO
from pathlib import Path
from time import sleep, time
from urllib import request
from urllib.error import HTTPError, URLError

from seran import __version__, files
from seran.errors import BadInput

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BLOCK = 1 << 18
RETRIES = 5
TIMEOUT = 60.0
"""Seconds without a byte."""
LONGEST = 120.0
"""Seconds, the most to wait between two attempts, whatever the server asks for."""
CHANGED = "the file there has changed, or the address leads to something else (a login page?)"


class _Again(Exception):
    """An attempt that failed in a way that may pass; the server asks to wait so many seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


def fetch(
    url: str,
    path: Path,
    size: int,
    digest: str,
    *,
    retries: int = RETRIES,
    progress: Callable[[int], object] = lambda have: None,
) -> Path:
    """Download ``url`` to ``path`` unless it is there; return ``path``, verified.

    Args:
        url: http or https; redirects to anything else are refused.
        path: where the file goes, in a folder that exists.
        size: bytes.
        digest: sha256 in hex; of 40 digits, git's SHA-1 of a blob, as listings of repositories have it.
        retries: attempts in a row that may bring nothing new, after the first.
        progress: is told how many bytes are there, again and again; fewer when the server starts over.

    Raises:
        BadInput: the file that is there, the address or what the server sends is wrong, the server does not
            answer, the disk is full, or another process is downloading the same file.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            return _verified(path, size, digest)
        with _alone(part, path):
            if path.exists():  # another process has finished it since
                return _verified(path, size, digest)
            with part.open("r+b", buffering=0) as file:
                _download(url, file, size, retries, progress)
                os.fsync(file.fileno())
            if wrong := _fault(part, size, digest):
                part.unlink()
                raise BadInput(
                    f"{url}: {wrong}; what came is removed: run the same command again, and if that does not "
                    f"help, {CHANGED}"
                )
            part.replace(path)
    except OSError as error:
        raise BadInput(
            f"{path}: {error.strerror or error}; once that is mended (room, permission, folder), the same "
            "command continues where it stopped"
        ) from error
    return path


def read(url: str, limit: int) -> bytes:
    """What ``url`` sends, of a size and digest nobody knows: at most ``limit`` bytes, kept in memory.

    Raises:
        BadInput: the address is wrong, the server does not answer or sends more.
    """
    for failures in itertools.count():
        try:
            response, _ = _ask(url, 0, None)
            data = b""
            for block in _blocks(response):
                data += block
                if len(data) > limit:
                    response.close()
                    raise BadInput(f"{url}: expected at most {limit} bytes, the server sends more")
            if response.length:
                raise _Again("the connection ended early")
            return data
        except _Again as error:
            if failures == RETRIES:
                raise BadInput(f"{url}: {error}; run the same command again later") from None
            _wait(error, failures)
    raise AssertionError("never reached")


def _fault(path: Path, size: int, digest: str) -> str:
    """What is wrong with a file, in words; nothing, if it is the one that is expected."""
    if (length := path.stat().st_size) != size:
        return f"expected {size} bytes, got {length}"
    kind, before = ("sha1", b"blob %d\0" % size) if len(digest) == 40 else ("sha256", b"")
    got = files.digest(path, kind, before)
    return "" if got == digest.lower() else f"expected {kind} {digest}, got {got}"


def _verified(path: Path, size: int, digest: str) -> Path:
    if wrong := _fault(path, size, digest):
        raise BadInput(f"{path}: {wrong}; move it away and run the same command again to download it")
    return path


@contextmanager
def _alone(part: Path, path: Path) -> Iterator[None]:
    """Make ``part`` and lock it; leave it behind only if there is something in it."""
    busy = BadInput(f"{path}: another process is downloading it; wait for it or stop it")
    with part.open("ab") as file:
        try:
            if fcntl is None:
                file.close()  # no lock, and an open file could not be renamed; the hash still decides
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:
            pass  # a network file system without locks; the hash still decides
        if not file.closed and not (part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())):
            raise busy  # who held the lock has renamed or removed what was opened here
        try:
            yield
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()


def _download(url: str, file: FileIO, size: int, retries: int, progress: Callable[[int], object]) -> None:
    """Fill ``file`` up to ``size`` bytes, from what it holds on."""
    if os.fstat(file.fileno()).st_size > size:
        file.truncate(0)
    have = most = file.seek(0, os.SEEK_END)
    failures = 0
    if have:
        progress(have)
    while have < size:
        try:
            response, start = _ask(url, have, size)
            if start != have:
                have = file.seek(0)
                file.truncate()
            for block in _blocks(response):
                if have + len(block) > size:
                    file.truncate(0)
                    raise BadInput(f"{url}: expected {size} bytes, the server sends more; {CHANGED}")
                while block:  # a disk that is nearly full takes less than it is given
                    written = file.write(block)
                    have, block = have + written, block[written:]
                progress(have)
            if have < size:
                raise _Again("the connection ended early")
        except _Again as error:
            if have == size:
                break
            failures = 0 if have > most else failures
            most = max(most, have)
            if failures >= retries:
                raise BadInput(
                    f"{url}: {error}; {have} of {size} bytes are kept, and the same command continues there"
                ) from None
            _wait(error, failures)
            failures += 1


def _wait(error: _Again, failures: int) -> None:
    """Longer after every failure, or as long as the server asks for."""
    sleep(min(LONGEST, max(error.wait, 2.0**failures)))


def _ask(url: str, have: int, size: int | None) -> tuple[HTTPResponse, int]:
    """Ask for the bytes from ``have`` on; return the response and the byte it begins with, ``have`` or 0."""
    if not re.fullmatch(r"https?://[^/?#\s][!-~]*", url, re.IGNORECASE):
        raise BadInput(f"{url}: an address must begin with https:// or http://")
    headers = {"User-Agent": f"seran/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = _opener().open(request.Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return _ask(url, 0, size)
        text = f"the server answers {error.code} {error.reason}"
        if error.code == 429 or error.code >= 500:
            raise _Again(text, _seconds(error.headers.get("Retry-After", ""))) from None
        raise BadInput(f"{url}: {text}; open it in a browser: it may have moved or need a login") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, (str, ValueError, InvalidURL)):  # no such scheme, host, port or certificate
            raise BadInput(f"{url}: {reason}; check the address and the proxy, if there is one") from None
        raise _Again(str(reason)) from None
    total, start = response.length, 0
    if have and response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != have:
            response.close()
            return _ask(url, 0, size)
        total, start = None if match[2] == "*" else int(match[2]), have
    if size is not None and total not in (None, size):
        response.close()
        raise BadInput(f"{url}: expected {size} bytes, the server announces {total}; {CHANGED}")
    return response, start


def _opener() -> request.OpenerDirector:
    """What `urllib.request.urlopen` uses, without files, data and FTP (a proxy could serve that, too)."""
    proxies = {scheme: proxy for scheme, proxy in request.getproxies().items() if scheme in ("http", "https")}
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(proxies), request.HTTPHandler(), request.HTTPSHandler(),
        request.HTTPRedirectHandler(), request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(), request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """Whatever has come, as soon as it has, so that nothing received is lost with the connection."""
    try:
        with response:
            while block := response.read1(BLOCK):
                yield block
    except (OSError, HTTPException) as error:
        raise _Again(str(error)) from None


def _seconds(retry_after: str) -> float:
    """How long a server asks to wait, in seconds or until a date; 0 where it does not say."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time()
    except (TypeError, ValueError):
        return 0.0
