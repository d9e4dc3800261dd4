import os
import subprocess
import sys
from pathlib import Path

import pytest

from seran.engines.openvino import native
from seran.machine import cpus, has_bf16, threads

CPU = Path("/sys/fs/cgroup/cpu")


@pytest.mark.skipif(not os.access(CPU, os.W_OK), reason="only root makes control groups (of version 1)")
def test_a_real_limit_is_seen() -> None:
    group = CPU / f"seran-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.cfs_quota_us").write_text("100000")
        enter = f"open('{group}/cgroup.procs', 'w').write('0')"
        code = f"from seran.machine import cpus; before = cpus(); {enter}; print(before, cpus())"
        made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    finally:
        group.rmdir()
    assert made.stdout.split() == [str(cpus()), "1"]


# Elsewhere the groups are files as the kernel shows them.


def _tree(root: Path, own: str, files: dict[str, str]) -> int:
    (root / "own").write_text(own)
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return cpus(root / "groups", root / "own")


@pytest.fixture
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.usefixtures("_many")
@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param("0::/\n", {"cpu.max": "max 100000"}, 64, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "400000 100000"}, 4, id="a container"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 1, id="half a CPU"),
        pytest.param("0::/\n", {"cpu.max": "250000 100000"}, 3, id="two and a half"),
        pytest.param(
            "0::/a.slice/b\n",
            {"a.slice/cpu.max": "200000 100000", "a.slice/b/cpu.max": "800000 100000"}, 2, id="a group above",
        ),
        pytest.param("0::/../../outside\n", {"cpu.max": "300000 100000"}, 3, id="a path that is not mounted"),
        pytest.param(
            "5:memory:/x\n4:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "600000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            6, id="version 1",
        ),
        pytest.param(
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            64, id="version 1 without a limit",
        ),
        pytest.param("0::/\n", {"cpu.max": "9900000 100000"}, 64, id="more than there are"),
    ],
)  # fmt: skip
def test_limits_of_containers_are_seen(
    tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    assert _tree(tmp_path, own, files) == expected


@pytest.mark.usefixtures("_many")
def test_without_control_groups(tmp_path: Path) -> None:
    assert cpus(tmp_path / "none", tmp_path / "neither") == 64


@pytest.mark.parametrize(
    ("flags", "cap", "expected"),
    [
        ("flags : fpu avx512f avx512_bf16 amx_bf16", "", True),
        ("flags : fpu avx2 avx_ne_convert", "", True),
        ("Features : fp asimd bf16 i8mm", "", True),
        ("flags : fpu avx2 avx512f", "", False),
        ("flags : fpu avx512f avx512_bf16", "AVX512_CORE_BF16", True),
        ("flags : fpu avx512f avx512_bf16", "avx512_core", False),
        (None, "", False),
    ],
)
def test_bf16_is_what_the_processor_and_the_user_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, cap: str, expected: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert has_bf16(tmp_path / "cpuinfo") == expected


def test_bf16_is_known_without_openvino() -> None:
    assert has_bf16() == (native() == "bf16")


@pytest.mark.parametrize(
    ("stated", "processes", "expected"),
    [
        (None, 1, 8),
        (None, 3, 2),
        ("3", 1, 3),
        ("3", 4, 2),
        ("2,4", 1, 2),
        ("64", 1, 8),
        ("0", 1, 8),
        ("x", 1, 8),
    ],
)
def test_threads_are_what_is_stated_for_any_program(
    monkeypatch: pytest.MonkeyPatch, stated: str | None, processes: int, expected: int
) -> None:
    """No more than there are CPUs for; nonsense is passed over, as OpenMP does."""
    monkeypatch.setattr("seran.machine.cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert threads(processes) == expected


def test_networks_run_on_the_threads_that_are_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    from seran.engines import Engine
    from seran.methods import forget, method

    monkeypatch.setattr("seran.machine.cpus", lambda: 3)
    for stated, asked, expected in (("2", 0, "2 threads"), ("2", 3, "3 threads"), ("", 0, "3 threads")):
        forget()
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        assert expected in method("srcnn", 2, engine=Engine(threads=asked)).engine
    forget()
