"""`seran bids` as other BIDS Apps are called, and its descriptor for Boutiques."""

import importlib.util
import json
import resource
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from seran import __version__, cli, machine, scratch
from seran.apps import arguments, bids
from seran.engines import Engine
from seran.errors import BadInput
from seran.job import limits
from seran.job.cluster import Cluster
from seran.job.dataset import Selection
from seran.job.dataset import images as chosen
from seran.job.limits import Limits
from tests.test_bids import images, run, save

ROOT = Path(__file__).parents[1]
DESCRIPTOR = ROOT / "containers" / "bids.json"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for i, name in enumerate(
        (
            "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz",
            "sub-01/ses-a/anat/sub-01_ses-a_run-02_T1w.nii.gz",
            "sub-01/ses-b/anat/sub-01_ses-b_acq-ax_T2w.nii.gz",
            "sub-02/anat/sub-02_acq-cor_T2w.nii.gz",
            "sub-02/anat/sub-02_FLAIR.nii.gz",
        )
    ):
        save(root / name, i)
    (root / "dataset_description.json").write_text('{"Name": "made", "BIDSVersion": "1.10.0"}')
    return root


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, "12acf"),
        ({"t1w": {"run": 2}}, "2acf"),
        ({"t1w": {"run": ["01", 7]}}, "1acf"),
        ({"T1W": {"run": 3}, "t2w": {"acquisition": "ax"}}, "af"),
        ({"t2w": {"acquisition": ["ax", "cor"], "session": None}}, "12cf"),
        ({"t2w": {"session": "*"}, "flair": {"session": "Query.ANY"}}, "12a"),
        ({"t2w": {"session": "Query.NONE"}, "flair": {"acquisition": [None, "ax"]}}, "12cf"),
        ({"t1w": {"subject": "02"}, "bold": {"task": "rest"}, "fmap": {"datatype": "fmap"}}, "acf"),
        ({"t2w": {"datatype": "anat", "suffix": "T2w", "extension": "nii.gz"}}, "12acf"),
        ({"t2w": {"datatype": "func"}}, "12f"),
    ],
)  # fmt: skip
def test_filters(raw: Path, tmp_path: Path, filters: dict[str, Any], left: str) -> None:
    marks = {"run-1": "1", "run-02": "2", "acq-ax": "a", "acq-cor": "c", "FLAIR": "f"}
    (file := tmp_path / "filter.json").write_text(json.dumps(filters))
    found = chosen(raw, Selection(bids_filter_file=file))
    said = [mark for path in found for part, mark in marks.items() if part in path.name]
    assert sorted(said) == sorted(left)
    assert set(found.values()) == {""}


VALUES = "expected a text, a whole number, null or a list of them, got"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[]", "expected a JSON object, got []"),
        ('{"t1": {}}', "flair, fmap, pdw, roi, sbref, t1w, t2w), got 't1'; correct that"),
        ('{"t1w": "a"}', "t1w: expected entities with values, got 'a'"),
        ('{"t1w": {"acq": "a"}}', "t1w: expected entities like session or acquisition, got 'acq'"),
        ('{"t1w": {"run": 1.5}}', f"t1w: run: {VALUES} 1.5"),
        ('{"t1w": {"run": [true]}}', f"t1w: run: {VALUES} [True]"),
        ('{"t1w": {"run": 9}, "t2w": {"run": 9}, "flair": {"run": 9}}', "no image of these participants"),
    ],
)
def test_filters_that_cannot_be(
    raw: Path, tmp_path: Path, text: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "filter.json").write_text(text)
    assert run(raw, tmp_path / "out", "participant", "--bids-filter-file", file) == 2
    told = capsys.readouterr().err
    assert line in told
    assert str(file) in told
    assert run(raw, tmp_path / "out", "participant", "--bids_filter_file", tmp_path / "none.json") == 2
    assert "none.json: No such file or directory" in capsys.readouterr().err


def test_what_is_nearly_a_scan_is_named_in_spite_of_a_filter(raw: Path, tmp_path: Path) -> None:
    save(raw / "sub-02" / "anat" / "sub-02_acq-iso0.8_T1w.nii.gz", 9)
    (file := tmp_path / "filter.json").write_text('{"t1w": {"run": 1}}')
    assert [why[:20] for why in chosen(raw, Selection(bids_filter_file=file)).values() if why] == [
        "expected a name like"
    ]


def test_a_run_as_other_apps_are_called(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Large arrays lie in the folder for work, which is empty afterwards; two CPUs are asked for."""
    folders: list[Path] = []

    def file(dir: Path, real: Any = scratch.tempfile.TemporaryFile) -> Any:
        folders.append(dir)
        return real(dir=dir)

    monkeypatch.setattr(scratch, "LARGE", 1000)
    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", file)
    (filters := tmp_path / "filter.json").write_text('{"t1w": {"run": 1}, "t2w": {"run": 9}}')
    work, out = tmp_path / "scratch" / "seran", tmp_path / "out"
    words = (raw, out, "participant", "--participant_label", "01", "--skip_bids_validation", "-w", work)
    assert run(*words, "--n_cpus", 2, "--bids-filter-file", filters, "--mem_mb", 90_000, "-v") == 0
    assert [Path(name).name for name in images(out)] == ["sub-01_ses-a_run-1_res-x2_desc-bicubic_T1w.nii.gz"]
    assert set(folders) == {work}
    assert list(work.iterdir()) == []
    told = json.loads(next(out.rglob("*_T1w.json")).read_text())
    assert told["RequestedEngine"]["threads"] == 2
    capsys.readouterr()
    for inside in (raw, raw / "work"):
        assert run(raw, out, "participant", "--work-dir", inside) == 2
        assert f"--work-dir {inside}: lies among the raw data; name another folder" in capsys.readouterr().err
    assert run(raw, out, "participant", "--work-dir", filters) == 2
    assert "filter.json: File exists; name another folder" in capsys.readouterr().err


def test_cpus_of_all_processes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "cpus", lambda: 6)

    def shared(n: int, cluster: str = "", workers: int = 0) -> tuple[int, int]:
        engine, where = Limits(n_cpus=n).shared(Engine(), Cluster(cluster, workers))
        return engine.threads, where.workers

    assert [shared(3), shared(8, "local"), shared(4, "local")] == [(3, 0), (1, 6), (1, 4)]
    assert [shared(8, "local", 2), shared(7, "local", 2), shared(2, "local", 5)] == [(4, 2), (3, 2), (1, 2)]
    for wrong, engine, where in (
        (Limits(n_cpus=2), Engine(threads=2), Cluster()),
        (Limits(n_cpus=2), Engine(), Cluster("slurm")),
        (Limits(mem_mb=9000), Engine(), Cluster("tcp://host:8786")),
        (Limits(mem_mb=599), Engine(), Cluster()),
        (Limits(mem_mb=1799), Engine(), Cluster("local", 2)),
        (Limits(n_cpus=2000), Engine(), Cluster()),
    ):
        with pytest.raises(BadInput, match=r"^--(n-cpus|mem-mb|threads)\b"):
            wrong.shared(engine, where)
    with pytest.raises(BadInput, match="--n-cpus 0: must be 1 or more"):
        Limits(n_cpus=0)


def test_the_script_of_a_job_array_asks_for_what_a_job_needs(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPUs, memory and a scratch folder go to SLURM and into the command; nothing is written, and no JSON."""
    out, log = tmp_path / "out", tmp_path / "run.log"
    words = ["bids", raw, out, "participant", "--cluster", "sbatch", "--n_cpus", 8, "--mem-mb", 16000]
    words += ["-w", "$TMPDIR/seran x", "--json", "--log", log, "--workers", 3]
    words = [*map(str, words)]
    monkeypatch.setattr("sys.argv", ["seran", *words])
    assert cli.run(words) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n")
    for line in ("--array=1-3", "--cpus-per-task=8", "--mem=16000M", "--time=24:00:00"):
        assert f"\n#SBATCH {line}\n" in script
    assert not out.exists()
    assert not log.exists()
    (shell := tmp_path / "job.sh").write_text(script.replace("exec seran", "printf '%s\\n'"))

    def ran(**variables: str) -> subprocess.CompletedProcess[str]:
        how: dict[str, Any] = {"capture_output": True, "text": True, "env": {"TMPDIR": "/local", **variables}}
        return subprocess.run(["bash", shell], **how)

    done = ran(SLURM_ARRAY_TASK_ID="2", SLURM_CPUS_PER_TASK="6").stdout.splitlines()
    assert done == [
        "bids", str(raw), str(out), "participant", "--json", "--log", str(log),
        "--mem-mb", "16000", "--work-dir", "/local/seran x", "--threads", "6", "--part", "2/3",
    ]  # fmt: skip
    assert ran(SLURM_ARRAY_TASK_ID="2").stdout.splitlines()[-3] == "8"
    assert "submit this with sbatch, or set it to a number from 1 to 3" in ran().stderr
    words = ["bids", str(raw), str(out), "participant", "--cluster", "sbatch"]
    monkeypatch.setattr("sys.argv", ["seran", *words])
    assert cli.run(words) == 0
    script = capsys.readouterr().out
    assert "\n#SBATCH --cpus-per-task=4\n#SBATCH --mem=4G\n" in script
    assert '--threads "${SLURM_CPUS_PER_TASK:-4}"' in script
    words[3] = "group"
    assert cli.run(words) == 2
    assert "--cluster sbatch: is for participant" in capsys.readouterr().err


def test_memory_of_all_processes_together() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with Limits(mem_mb=90_000).bounded(Cluster("local", 2)):
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 30_000_000_000
        assert machine.memory()[0] <= 30_000_000_000
        with pytest.raises(MemoryError) as stop:
            np.ones(40_000_000_000, np.uint8)
    assert "needs about 40 GB more memory" in (machine.short_of_memory(stop.value) or "")
    small = machine.short_of_memory(MemoryError((65, 1000, 1000), np.dtype(np.uint8)))
    assert "needs about 65 MB more memory" in (small or "")
    with Limits(mem_mb=90_000).bounded(Cluster()):
        assert (machine.short_of_memory(stop.value) or "").endswith("; give --mem-mb 130000 or more")
        for error in (MemoryError(), RuntimeError("plugin.cpp:54: Resource temporarily unavailable")):
            assert (machine.short_of_memory(error) or "").endswith("; give a larger --mem-mb")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with Limits().bounded(Cluster()):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["bids", "--version"], ["upscale", "--version"], ["--version"]):
        assert cli.run(words) == 0
        assert capsys.readouterr().out == f"seran {__version__}\n"


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The program that writes the descriptor."""
    spec = importlib.util.spec_from_file_location("boutiques", ROOT / "containers" / "boutiques.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_descriptor_is_what_the_command_takes(made: ModuleType, tmp_path: Path) -> None:
    """It is as it would be written today, names every option of the help, and none that is unknown."""
    made.main(tmp_path / "bids.json")
    now = "python containers/boutiques.py containers/bids.json"
    assert DESCRIPTOR.read_bytes() == (tmp_path / "bids.json").read_bytes(), f"write it again: {now}"
    told = json.loads(DESCRIPTOR.read_text())
    options = [one for one in told["inputs"] if "command-line-flag" in one]
    flags = {one["command-line-flag"] for one in options}
    for argument in [*arguments.of(bids.bids), *arguments.COMMON]:
        assert not argument.flags or flags & {*argument.flags} or {"--help", "--version"} & {*argument.flags}
    for one in options:
        value = {"Flag": [], "Number": ["1"]}.get(one["type"], [*one.get("value-choices", ["x"])[:1]])
        words = [one["command-line-flag"], *(value * int(one.get("min-list-entries", 1)))]
        wrong = arguments._mistake("bids", bids.bids, ["raw", "out", "participant", *words])
        assert not wrong or "or a number" in wrong or "auto" in wrong, wrong
        assert one["value-key"] in told["command-line"].split()
    codes = (ROOT / "docs" / "command.md").read_text()
    assert all(f"\n| {one['code']} | " in codes for one in told["error-codes"])


def test_boutiques_accepts_the_descriptor(tmp_path: Path) -> None:
    bosh = shutil.which("bosh")
    if bosh is None:
        pytest.skip("there is no bosh here (pip install boutiques)")
    done = subprocess.run([bosh, "validate", "--bids", DESCRIPTOR], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(DESCRIPTOR.read_text())
    del told["inputs"][0]["type"]
    (bad := tmp_path / "bad.json").write_text(json.dumps(told))
    assert subprocess.run([bosh, "validate", "--bids", bad], capture_output=True).returncode != 0
