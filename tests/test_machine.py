import os
from pathlib import Path

import pytest

from seran.machine import cpus

# Control groups are the kernel's, and only root may make some: these are files as it shows them.


def _tree(root: Path, own: str, files: dict[str, str]) -> int:
    (root / "own").write_text(own)
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return cpus(root / "groups", root / "own")


@pytest.fixture(autouse=True)
def _many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param("0::/\n", {"cpu.max": "max 100000"}, 64, id="no limit"),
        pytest.param("0::/\n", {"cpu.max": "400000 100000"}, 4, id="a container"),
        pytest.param("0::/\n", {"cpu.max": "50000 100000"}, 1, id="half a CPU"),
        pytest.param("0::/\n", {"cpu.max": "250000 100000"}, 3, id="two and a half"),
        pytest.param(
            "0::/a.slice/b\n",
            {"cpu.max": "max 100000", "a.slice/cpu.max": "200000 100000", "a.slice/b/cpu.max": "800000 100000"},
            2, id="the group above is narrower",
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


def test_without_control_groups(tmp_path: Path) -> None:
    assert cpus(tmp_path / "none", tmp_path / "neither") == 64
