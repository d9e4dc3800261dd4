"""What memory a scan takes is told, and refused, before it is taken; want of it ends no process silently."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import machine, scratch
from seran.engines import Engine, mnn
from seran.errors import BadInput
from seran.job import memory
from seran.job.cluster import Cluster
from seran.job.limits import Limits
from seran.quality import checks
from seran.volume import Volume
from tests.conftest import oblique, phantom
from tests.test_bids import save

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
F32 = Engine(precision="f32", threads=1)


def needs(monkeypatch: pytest.MonkeyPatch, *how: object) -> float:
    """About how many bytes, as it is refused to whom nothing is allowed."""
    with monkeypatch.context() as patch:
        patch.setattr(machine, "allowed", lambda: 0.0)
        with pytest.raises(BadInput) as stop:
            memory.foresee("a.nii", *how)  # type: ignore[arg-type]
    found = re.match(r"a.nii: needs about ([\d.]+) ([GM]B) of memory, and 0 MB are allowed", str(stop.value))
    assert found is not None
    return float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]]


def test_what_is_needed_grows_with_what_is_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large arrays lie on disk; features are of as many slices as are in work, and of a GPU not here."""
    monkeypatch.setattr(mnn, "suits", lambda threads: False)
    small, wide = (64, 64, 4), (512, 512, 24)
    assert needs(monkeypatch, [small], [], F32) == pytest.approx(185e6, rel=0.01)
    one = needs(monkeypatch, [wide, wide], [], F32)
    assert one == pytest.approx(185e6 + 2 * 4 * 512 * 512 * 24 + 3.3 * 4 * 512 * 512 * 24, rel=0.01)
    assert needs(monkeypatch, [(512, 512, 400)], [], F32) == pytest.approx(185e6 + 4.3 * (1 << 25), rel=0.01)
    network = needs(monkeypatch, [small], [(256, 256), (64, 64)], F32)
    assert network == pytest.approx(335e6 + 1600 * 256 * 256, rel=0.01)
    two = needs(monkeypatch, [small], [(256, 256)], Engine(precision="f32", threads=2))
    assert two == pytest.approx(335e6 + 2 * 1600 * 256 * 256, rel=0.01)
    assert needs(monkeypatch, [small], [(512, 512)], Engine("cuda")) == pytest.approx(335e6, rel=0.01)
    monkeypatch.setattr(mnn, "suits", lambda threads: True)
    assert needs(monkeypatch, [small], [(256, 256)], F32) == pytest.approx(335e6 + 2500 * 256 * 256, rel=0.01)


def test_a_check_holds_no_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a result that lies on disk, whose rows vary fastest."""
    monkeypatch.setattr(scratch, "PART", 1 << 20)
    monkeypatch.setattr(checks, "SEEN", 1000)
    volume = Volume(np.asfortranarray(phantom((128, 128, 64))), oblique())
    tracemalloc.start()
    found = checks._range(volume)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.least, found.most) == (volume.data.min(), volume.data.max())
    assert peak < 2 * scratch.PART < volume.data.nbytes


def test_a_scan_that_needs_more_is_refused_before_the_work(tmp_path: Path) -> None:
    """The others go on. Progress has the number for programs, too."""
    raw = tmp_path / "raw"
    save(raw / "sub-1" / "anat" / "sub-1_T2w.nii.gz", 1, (1024, 900, 2))
    save(raw / "sub-2" / "anat" / "sub-2_T2w.nii.gz", 2)
    (raw / "dataset_description.json").write_text('{"Name": "two", "BIDSVersion": "1.10.0"}')
    words = ["bids", raw, tmp_path / "out", "participant", "--mem-mb", 600, "--json", "--method", "seran"]
    words = [sys.executable, "-m", "seran", *words, "--strict", "off", "--threads", 1]
    made = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=100)
    assert made.returncode == 1, made.stderr
    events = [json.loads(line) for line in made.stdout.splitlines()]
    bad, good = (event for event in events if event["event"] == "scan")
    said = r"needs about [\d.]+ GB of memory, and 600 MB are allowed; give --mem-mb \d+ or more"
    assert re.search(rf"sub-1_T2w.nii.gz: {said}$", bad["text"])
    assert (bad["status"], good["status"]) == ("failed", "sharpened")
    assert not any(event.get("scan") == bad["scan"] and event.get("slices") for event in events)
    told = [event["memory"] for event in events if event["event"] == "progress" and event["memory"]]
    assert 320e6 < max(told) < 400e6


def test_a_process_that_has_more_already_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it begins: a thread that gets no memory would be waited for without end."""
    monkeypatch.setattr(machine, "held", lambda: 580_000_000)
    told = r"--mem-mb 1850: each process takes 630 MB before it reads a scan; give 1900 or more"
    with pytest.raises(BadInput, match=told), Limits(mem_mb=1850).bounded(Cluster("local", 2)):
        raise AssertionError
    with Limits(mem_mb=1900).bounded(Cluster("local", 2)):
        assert machine.allowed() == 633_333_333


LINEAR = """
from scipy.linalg import blas
import numpy as np
from seran import machine, scratch
square = np.ones((300, 300))
machine.prepare()
with machine.bounded(machine.held() + 4_000_000):
    np.matmul(square, square)
    blas.dgemm(1.0, square, square)
print("done")
"""


def test_linear_algebra_asks_for_no_memory_later() -> None:
    """Else OpenBLAS ends the process, or never comes back."""
    made = subprocess.run([sys.executable, "-c", LINEAR], capture_output=True, text=True, timeout=60)
    assert (made.returncode, made.stdout) == (0, "done\n"), made.stderr


BOUNDED = """
import sys
from seran import cli, machine
machine.prepare()
with machine.bounded(int(sys.argv[1]) + machine.held() * (sys.argv[2] == "more")):
    sys.exit(cli.run(sys.argv[3:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["--method bicubic --scale 4", "--fast", "", "--precision f32", "--isotropic"]
)
def test_what_is_advised_is_enough(tmp_path: Path, how: str) -> None:
    scan = tmp_path / "in.nii.gz"
    matrix = (256, 240, 24) if "bicubic" in how else (192, 160, 12)
    nib.save(nib.Nifti1Image(phantom(matrix), oblique((1.0, 1.0, 4.0))), scan)
    words = ["upscale", str(scan), str(tmp_path / "out.nii"), "--strict", "off", "--threads", "1"]
    words += how.split()
    alone = os.environ | {"OMP_NUM_THREADS": "1"}

    def ran(most: int, of: str) -> str:
        command = [sys.executable, "-c", BOUNDED, str(most * 10**6), of, *words]
        made = subprocess.run(command, capture_output=True, text=True, timeout=500, env=alone)
        return made.stderr.strip().splitlines()[-1] if made.returncode else "done"

    refused = ran(120, "more")
    advised = re.search(r"give --mem-mb (\d+) or more$", refused)
    assert advised is not None, refused
    assert ran(int(advised[1]), "all") == "done"
