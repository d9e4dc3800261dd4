"""Writing files so that nothing half-written can ever be mistaken for a result; digests of files."""

import ctypes
import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from seran.errors import BadInput

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ONE_AT_A_TIME = threading.Lock()  # held while a descriptor, which belongs to the process, leads elsewhere
TAKEN = errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR  # the name is another process's by now
FOLDERS = re.compile(r"""(?:[A-Za-z]:)?[^=:,"/\\]*[/\\]""")  # in a word: what stands before a name
GONE = "a link to what is not there; get it first (git annex, DataLad)"
IRREGULAR = "a pipe or a device, which is not read; save it as a file first"
CLOCKS = 5.0  # seconds by which the clocks of a process and of a file system may differ
PATIENCE = 10.0  # seconds to wait for the lock of a folder; who holds it longer renames nothing


@cache
def place() -> str:
    """Where the number of this process means something: the machine and, on Linux, the container."""
    names = [platform.node()]
    with suppress(OSError):  # not on every system
        names.append(Path("/etc/machine-id").read_text())
    with suppress(OSError):
        names.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _mark() -> str:
    """How the names of private folders begin: hidden, and of which `place`; the process and more follow."""
    return f".part-{place()}-"


def _claims(folder: Path) -> Path:
    """Where the claims of this `place` to what comes into a folder lie, which may hold many results."""
    return folder / f"{_mark()}claims"


@cache
def sweep(folder: Path) -> None:
    """Remove, once, what dead processes of this `place` left in a folder, unless their number is in use."""
    for here in (folder, claims := _claims(folder)):
        for left in here.glob(f"{_mark()}*-*"):
            # swept by another process at this moment, or no number of a process
            with suppress(OSError, OverflowError, ValueError):
                if not _lives(_owner(left)):
                    _remove(left)
    with suppress(OSError):  # there are none, or some of living processes
        claims.rmdir()


def _is_held(claim: Path) -> bool:
    """Whether it is of a living process, and not of this one."""
    with suppress(OverflowError, ValueError):
        process = _owner(claim)
        return process != os.getpid() and _lives(process) and not _is_younger(process, claim)
    return False


def _owner(hidden: Path) -> int:
    """The number of the process whose private folder or claim this is; `ValueError` if its name has none."""
    return int(hidden.name.split("-")[2])


def _is_younger(process: int, than: Path) -> bool:
    """Whether a process began after something was made: it has the number of the one that made that."""
    try:
        began = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        age = time.time() - than.lstat().st_mtime
    except (OSError, ValueError, IndexError):  # not on every system
        return False
    return up - began / os.sysconf("SC_CLK_TCK") + CLOCKS < age


def _lives(process: int) -> bool:
    """Whether there is a process of this number; where none can be asked, there is."""
    if os.name != "posix":  # elsewhere, to ask a process whether it is there may end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Whether no other living process of this `place` is at work on what comes to a path; if so, this one is.

    It is claimed before others are looked for: of two that begin at one moment one at most is told yes, and
    who is told no may try again.
    """
    claims, what = _claims(path.parent), hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    own = claims / f"{_mark()}{os.getpid()}-{what}"
    while True:
        with suppress(FileNotFoundError):  # the last of others has just removed the folder
            _make_alike(claims)
            own.touch()
            break
    try:
        yield not any(map(_is_held, claims.glob(f"*-{what}")))
    finally:
        own.unlink(missing_ok=True)
        with suppress(OSError):  # there are others
            claims.rmdir()


def _make_alike(folder: Path) -> None:
    """Make a folder, if it is not there, which those may write to who may write to the one above it."""
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        if os.name == "posix":
            with suppress(PermissionError):  # of a group that this user is not in
                os.chown(folder, -1, folder.parent.stat().st_gid)
            shutil.copymode(folder.parent, folder)


@contextmanager
def folder_for(path: Path) -> Iterator[None]:
    """Make the folder of a path, and remove again what of it is empty in the end."""
    made = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # something is in it
            for folder in made:
                folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def inside(path: Path) -> list[Path]:
    """A file, or every file in a folder and below, in order."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


@contextmanager
def together(*paths: Path, force: bool = True) -> Iterator[list[Path]]:
    """Yield a place to write each path, a file or folder, in a private folder; on success flush and rename.

    The first gets its name first and the last, which may vouch for the others, last: what was there under
    all names but the first goes before. Killed in between, a run leaves no record that is of other files.
    Whatever else ends the block early (an error, a full disk, Ctrl-C) leaves former files, and no new ones.

    Args:
        paths: what is written.
        force: replace former files. Without it there are none, or there is a `BadInput`: of processes that
            write the same, one wins.
    """
    hidden: dict[Path, Path] = {}
    try:
        for folder in dict.fromkeys(path.parent.absolute() for path in paths):
            sweep(folder)
            hidden[folder] = Path(tempfile.mkdtemp(prefix=f"{_mark()}{os.getpid()}-", dir=folder))
        parts = [hidden[path.parent.absolute()] / path.name for path in paths]
        yield parts
        for file in (file for made in parts for file in inside(made)):
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        with _alone(hidden):
            _commit(list(zip(parts, paths, strict=True)), force)
    except OSError as error:  # a full disk names no file, and the hidden one means nothing to a user
        if error.filename is None or _mark() in str(error.filename):
            error.filename = str(paths[0])
        raise
    finally:
        for made in hidden.values():
            shutil.rmtree(made, ignore_errors=True)


def _commit(pairs: Sequence[tuple[Path, Path]], force: bool) -> None:
    """Rename what was made, in order; whatever stops that before the first has its name changes nothing."""
    former: list[tuple[Path, Path]] = []
    named: list[tuple[Path, Path]] = []
    try:
        for made, path in reversed(pairs[1:] if force else []):
            kept = Path(tempfile.mkdtemp(dir=made.parent), path.name)
            with suppress(FileNotFoundError):
                path.replace(kept)
                former.append((kept, path))
        for made, path in pairs:
            _name(made, path, force)
            named.append((made, path))
    except BaseException as error:
        if not named:
            for kept, path in former:
                kept.replace(path)
        for made, path in [] if force else named:
            path.replace(made) if path.is_dir() else path.unlink()
        if not force and isinstance(error, OSError) and error.errno in TAKEN:
            told = f"{path} exists, written by another process meanwhile; give --force to replace it"
            raise BadInput(told) from error
        raise


def _name(made: Path, path: Path, force: bool) -> None:
    """Give what was made its name; an error if that is taken, unless it is replaced by ``force``."""
    if not force and not made.is_dir():
        try:
            os.link(made, path)  # unlike a rename it replaces nothing, whatever machine was faster
            return
        except OSError as error:  # some file systems have no links
            if error.errno == errno.EEXIST or os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
    made.replace(path)


@contextmanager
def _alone(folders: Iterable[Path]) -> Iterator[None]:
    """Let no other process rename anything in these folders meanwhile, where the file system has locks."""
    with ExitStack() as stack:
        for folder in sorted(folders) if fcntl else []:
            with suppress(OSError):
                opened = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, opened)
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline:
                    try:
                        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        time.sleep(0.01)
        yield


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """`together` for one file."""
    with together(path) as (made,):
        yield made


def below(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Every file in a folder and in those below it; and what of it cannot be reached, with the reason.

    Links are followed, and a folder is entered once however many lead to it, as itself where it lies here.
    What is hidden (``.git``, ``.snapshot``) is left out.
    """
    found: list[Path] = []
    lost: dict[Path, str] = {}
    seen: set[tuple[int, int]] = set()
    left = deque([folder])  # links to folders last
    while left:
        here = left.popleft()
        try:
            status, entries = here.stat(), [e for e in here.iterdir() if not e.name.startswith(".")]
        except OSError as error:
            lost[here] = error.strerror or "cannot be reached"
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            try:
                if entry.is_dir():
                    (left.append if entry.is_symlink() else left.appendleft)(entry)
                elif entry.is_file():
                    found.append(entry)
                else:
                    lost[entry] = GONE if entry.is_symlink() and not entry.exists() else IRREGULAR
            except OSError as error:
                lost[entry] = error.strerror or "cannot be reached"
    return sorted(found), lost


def folders(folder: Path) -> list[Path]:
    """Every folder in a folder and below, but for hidden ones and what lies behind links to folders."""
    found: list[Path] = []
    for here, names, _ in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(here, name) for name in names]
    return sorted(found)


def nameless(word: str) -> str:
    """A word of a command line without the folders of paths in it, which tell of a machine and its user.

    >>> nameless("/home/ada/pairs/"), nameless("--init=../ada's/a.onnx")
    ('pairs', '--init=a.onnx')
    """
    return FOLDERS.sub("", word.rstrip("/\\"))


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return digest(path, "sha256")


def sha256_of(paths: Iterable[Path]) -> str:
    """Hex digest of a file; of several, that of what ``sha256sum * | sort`` prints for them."""
    if len(all_of := list(paths)) == 1:
        return sha256(all_of[0])
    lines = sorted(b"%s  %s\n" % (sha256(path).encode(), os.fsencode(path.name)) for path in all_of)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def digest(path: Path, algorithm: str, before: bytes = b"") -> str:
    """Hex digest of ``before`` and a file's bytes.

    Args:
        path: the file.
        algorithm: its name in `hashlib`.
        before: bytes that are put before those of the file.
    """
    hashed = hashlib.new(algorithm, before)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


@contextmanager
def quiet(descriptor: int) -> Iterator[None]:
    """Send what native libraries print to standard output (1) or standard error (2) nowhere."""
    flush = ctypes.CDLL(None).fflush if os.name == "posix" else lambda all_streams: None  # of C's library
    with ONE_AT_A_TIME:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        flush(None)
        kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, descriptor)
            yield
        finally:
            flush(None)
            os.dup2(kept, descriptor)
            os.close(kept)
            os.close(nowhere)
