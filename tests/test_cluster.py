"""Real clusters on this machine: killed workers, a poisoned scan, a full disk, a lost scheduler, arrays."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import files
from seran.errors import BadInput
from seran.job import cluster
from seran.job.cluster import Cluster
from tests.conftest import LOOPBACK, listening, oblique, phantom

COMMAND = [sys.executable, "-m", "seran", "upscale"]
pytestmark = pytest.mark.slow


def scans(folder: Path, count: int, shape: tuple[int, int, int] = (60, 50, 12)) -> Path:
    folder.mkdir()
    base = phantom(shape)
    for i in range(count):
        nib.save(nib.Nifti1Image(base + i, oblique()), folder / f"scan{i:02}.nii.gz")
    return folder


def started(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def workers(parent: int) -> list[int]:
    """Process numbers of Dask's workers below a process: those that have opened the weights' library."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rsplit(")", 1)[1].split()
            line = path.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == parent and b"spawn_main" in line:
            found.append(int(path.parent.name))
    return found


def whole(out: Path, count: int) -> None:
    """Every result is there once, can be read, and belongs to its record."""
    records = sorted(p for p in out.glob("*.json") if not p.name.startswith("."))
    assert len(records) == count
    for path in records:
        image = nib.load(path.with_suffix(".nii.gz"))
        assert list(image.shape) == json.loads(path.read_text())["ShapeAfter"]
        assert np.asarray(image.dataobj).any()


def test_it_equals_one_process(tmp_path: Path) -> None:
    source = scans(tmp_path / "in", 4)
    done = started(source, tmp_path / "many", "--cluster", "local", "--workers", "2")
    assert done.communicate()[0] == "4 sharpened, 0 there already, 0 failed\n"
    alone = started(source, tmp_path / "one", "--threads", "1")
    assert alone.communicate()[0] == "4 sharpened, 0 there already, 0 failed\n"
    for path in sorted((tmp_path / "one").glob("*.nii.gz")):
        assert files.sha256(path) == files.sha256(tmp_path / "many" / path.name)


def test_a_killed_worker_among_two(tmp_path: Path) -> None:
    source, out = scans(tmp_path / "in", 24), tmp_path / "out"
    process = started(source, out, "--cluster", "local", "--workers", "2")
    until(lambda: len(list(out.glob("scan*.json"))) >= 4)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    told, said = process.communicate(timeout=300)
    assert told == "24 sharpened, 0 there already, 0 failed\n", said
    assert len(re.findall(r"^\[\d+/24\] seran", said, re.MULTILINE)) == 24  # none twice
    whole(out, 24)


FOREIGN = """
import os, sys
import distributed
from distributed.security import Security
for scheme, security in (("tcp", None), ("tls", Security.temporary())):
    try:
        client = distributed.Client(f"{scheme}://127.0.0.1:{sys.argv[1]}", security=security, timeout=2)
        print(client.run_on_scheduler(os.getpid))
    except (OSError, TimeoutError):
        continue
"""
"""Another user of the machine, who would have code run; it prints a number if it does."""


WAITS = """
import time
from seran.job import cluster
if __name__ == "__main__":
    list(cluster.spread(time.sleep, [120, 120], cluster.Cluster("local", 2), print))
"""


def test_only_its_own_processes_speak_to_a_local_cluster(tmp_path: Path) -> None:
    """On loopback, by certificates; and nothing answers a browser."""
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "foreign.py").write_text(FOREIGN)
    process = subprocess.Popen([sys.executable, tmp_path / "waits.py"])

    def doors() -> set[tuple[str, int]]:
        return set().union(*map(listening, [process.pid, *workers(process.pid)]))

    try:
        until(lambda: len(doors()) >= 5)  # the scheduler, two workers, who looks after each
        time.sleep(5)
        assert {address for address, _ in doors()} <= LOOPBACK
        for _, port in doors():
            words = [sys.executable, tmp_path / "foreign.py", str(port)]
            tried = subprocess.run(words, capture_output=True, text=True)
            assert (tried.returncode, tried.stdout) == (0, "")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as browser:
                browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert not browser.recv(100).startswith(b"HTTP")
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


POISON = """
import os, sys
from seran import cli, io
read = io.read_series
def poisoned(path, *args):
    if path.path.name == "scan03.nii.gz":
        with open(os.environ["TRIES"], "a") as file:
            file.write("x")
        os.kill(os.getpid(), 9)
    return read(path, *args)
io.read_series = poisoned
if __name__ == "__main__":
    sys.exit(cli.run(sys.argv[1:]))
"""
"""A scan at which the process that reads it dies: in truth, one that makes a library crash."""


def test_a_poisoned_scan_fails_alone(tmp_path: Path) -> None:
    source, out = scans(tmp_path / "in", 8), tmp_path / "out"
    program = tmp_path / "poison.py"
    program.write_text(POISON)
    done = subprocess.run(
        [sys.executable, program, "upscale", source, out, "--cluster", "local", "--workers", "2",
         "--tries", "2", "--log", tmp_path / "log"],
        env={**os.environ, "TRIES": str(tmp_path / "tries")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "7 sharpened, 0 there already, 1 failed" in done.stderr
    assert "scan03.nii.gz: its worker died 2 times" in done.stderr
    assert (tmp_path / "tries").read_text() == "xx"
    lines = re.findall(r"WARNING (.*: its worker died, .*)", (tmp_path / "log").read_text())
    poisoned, why = source / "scan03.nii.gz", "out of memory, or killed?"
    assert lines == [f"{poisoned}: its worker died, try {n} of 2; {why}" for n in (1, 2)]
    whole(out, 7)


Started = Callable[[], tuple[str, subprocess.Popen[bytes]]]


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Started]:
    """Starts a scheduler with one worker, and gives its address and its process; all end with the test."""
    made: list[subprocess.Popen[bytes]] = []
    dask = Path(sys.executable).with_name("dask")

    def start() -> tuple[str, subprocess.Popen[bytes]]:
        note = tmp_path / f"scheduler{len(made)}.json"
        local = ("--host", "127.0.0.1", "--no-dashboard")
        words = [dask, "scheduler", *local, "--scheduler-file", note, "--port", "0"]
        made.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        until(lambda: note.is_file() and note.read_text())  # it is there before it says anything
        address = json.loads(note.read_text())["address"]
        worker = [dask, "worker", address, "--nthreads", "1", *local]
        made.append(subprocess.Popen(worker, stderr=subprocess.DEVNULL, cwd=tmp_path))
        return address, made[-2]

    yield start
    for one in made:
        one.kill()
        one.wait()


def test_a_lost_scheduler_and_another(tmp_path: Path, scheduler: Started) -> None:
    source, out = scans(tmp_path / "in", 12), tmp_path / "out"
    address, running = scheduler()
    process = started(source, out, "--cluster", address)
    until(lambda: process.poll() is not None or len(list(out.glob("scan*.json"))) >= 3)
    running.kill()
    told, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert "the scheduler is lost" in said
    assert "Traceback" not in said, said
    address, _ = scheduler()
    process = started(source, out, "--cluster", address, "--resume")
    told, said = process.communicate(timeout=300)
    assert re.fullmatch(r"\d+ sharpened, [1-9]\d* there already, 0 failed\n", told), said
    whole(out, 12)


@pytest.mark.parametrize("moment", ["map", "_gather", "_gather_remote", "close"])
def test_a_scheduler_lost_at_any_moment(
    moment: str, scheduler: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the work is sent, before and while a result is fetched, and when all is done."""
    address, running = scheduler()
    client, calls = pytest.importorskip("distributed").Client, []
    known = getattr(client, moment)

    def killing(*args: object, **named: object) -> object:
        calls.append(moment)
        if len(calls) == (1 if moment in ("map", "close") else 3):
            running.kill()
            running.wait()
        return known(*args, **named)

    monkeypatch.setattr(client, moment, killing)
    found = cluster.spread(str, range(6), Cluster(address), lambda _, why: why)
    if moment == "close":
        assert sorted(found) == list("012345")
    else:
        with pytest.raises(BadInput, match="the scheduler is lost; start one"):
            assert set(found) < set("012345")


def test_a_fault_of_the_work_is_that_of_one_item(scheduler: Started) -> None:
    address, _ = scheduler()
    found = {
        *cluster.spread(float, ["2", "x", "4"], Cluster(address, tries=1), lambda item, why: (item, why))
    }
    why = "unexpected ValueError: could not convert string to float: 'x'; please report it"
    assert found == {2.0, ("x", why), 4.0}
    with pytest.raises(BadInput, match=r"No module named .* install the same seran there"):
        list(cluster.spread(workers, [1], Cluster(address), lambda _, why: [0]))  # tests are not there


def test_a_full_disk_on_the_way(tmp_path: Path) -> None:
    """A real file system of 4 MB: what fits is there, what does not is named, nothing is half-written."""
    source, out = scans(tmp_path / "in", 6, (96, 80, 24)), tmp_path / "out"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", out]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this needs the right to mount a file system")
    try:
        process = started(source, out, "--cluster", "local", "--workers", "2", "--tries", "2")
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "No space left on device" in said
        made = len(list(out.glob("scan*.json")))
        assert 1 <= made < 6
        assert f"{made} sharpened, 0 there already, {6 - made} failed" in said
        whole(out, made)
        assert not list(out.glob(".part*"))
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_stopped_run_continues(tmp_path: Path) -> None:
    source, out = scans(tmp_path / "in", 10), tmp_path / "out"
    process = started(source, out, "--cluster", "local", "--workers", "2")
    until(lambda: len(list(out.glob("scan*.json"))) >= 1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[1].splitlines()[-1].startswith("seran: interrupted")
    there = len(list(out.glob("scan*.json")))
    again = started(source, out, "--cluster", "local", "--workers", "2", "--resume")
    assert again.communicate()[0] == f"{10 - there} sharpened, {there} there already, 0 failed\n"
    whole(out, 10)


def test_the_script_of_a_job_array_does_every_scan_once(tmp_path: Path) -> None:
    source, out = scans(tmp_path / "in", 7, (26, 22, 5)), tmp_path / "out"
    made = started(source, out, "--method", "bicubic", "--cluster", "sbatch", "--workers", "3")
    script = made.communicate()[0]
    assert "#SBATCH --array=1-3" in script
    assert not out.exists()
    (tmp_path / "job.sh").write_text(script.replace("exec seran", f"exec {sys.executable} -m seran"))
    for job in (3, 1, 2, 1):  # SLURM is not to be had here: its variables, and bash
        done = subprocess.run(
            ["bash", tmp_path / "job.sh"], capture_output=True, text=True, cwd=tmp_path,
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(job), "SLURM_CPUS_PER_TASK": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert done.stdout == "0 sharpened, 3 there already, 0 failed\n"
    whole(out, 7)


def test_what_cannot_be_a_cluster(tmp_path: Path) -> None:
    for bad in (
        {"cluster": "http://x"}, {"workers": -1}, {"tries": 0}, {"part": "0/3"}, {"part": "4/3"},
        {"part": "a"}, {"part": "1/2", "cluster": "sbatch"},
    ):  # fmt: skip
        with pytest.raises(BadInput, match=r"--\w+( .+)?: (must be|expected|the script)"):
            Cluster(**bad)
    with pytest.raises(BadInput, match="no scheduler answers"):
        list(cluster.spread(str, [1], Cluster("tcp://127.0.0.1:9"), lambda item, why: why))
    source = scans(tmp_path / "in", 1, (26, 22, 5)) / "scan00.nii.gz"
    process = started(source, tmp_path / "out.nii", "--cluster", "local")
    assert "are for several scans" in process.communicate()[1]
    assert process.returncode == 2


def test_slurm_without_a_file_for_it_and_with_the_one_of_the_page() -> None:
    dask, jobqueue = pytest.importorskip("dask"), pytest.importorskip("dask_jobqueue")
    nothing = {"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}
    said = r"jobqueue\.yaml states no cores and memory for slurm; docs/cluster"
    with dask.config.set(nothing), pytest.raises(BadInput, match=said):
        list(cluster.spread(str, [1], Cluster("slurm"), lambda item, why: why))
    page = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
    block = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    stated = pytest.importorskip("yaml").safe_load(block[1])["jobqueue"]["slurm"]
    stated = {f"jobqueue.slurm.{name}": value for name, value in stated.items()}
    with dask.config.set(stated), jobqueue.SLURMCluster() as made:
        script = made.job_script()
    for line in ("-p NAME", "-A NAME", "--cpus-per-task=4", "--mem=4G", "-t 24:00:00"):
        assert f"#SBATCH {line}\n" in script


def test_the_page_says_how_what_dead_nodes_left_is_removed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
    words = re.search(r"find derivatives/seran (-name.*)", page)
    assert words is not None
    yesterday = time.time() - 3 * 86400
    for name in ("sub-1/.part-old-1-x", "sub-1/.part-new-1-x", "sub-1/kept"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.nii").touch()
        if "new" not in name:
            os.utime(tmp_path / name, (yesterday, yesterday))
    subprocess.run(f"find {tmp_path} {words[1]}", shell=True, check=True)
    assert sorted(p.name for p in (tmp_path / "sub-1").iterdir()) == [".part-new-1-x", "kept"]


def test_a_script_holds_every_name_or_there_is_none() -> None:
    with pytest.raises(BadInput, match=r"caf\udce9: expected a name that a script can hold"):
        Cluster("sbatch").script(["upscale", "caf\udce9"], 1)
    with pytest.raises(BadInput, match="--: a script has its options last; leave it out"):
        Cluster("sbatch").script(["bids", "--", "raw", "out", "participant"], 1)
