"""Journeys: the installed command as a separate process, on real files."""

import fcntl
import gzip
import json
import logging
import os
import pty
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seran import cli, files, progress, weights
from seran.systems import SYSTEMS
from tests.conftest import oblique, phantom

COMMAND = [sys.executable, "-m", "seran.cli"]


def seran(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, **options)


def fails(*args: object, **options: object) -> str:
    """Run a command that must fail with one line on stderr and status 2; return that line."""
    done = seran(*args, **options)
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_help_names_every_command() -> None:
    done = seran("--help")
    assert done.returncode == 0
    for name in ("upscale", "bids", "info", "demo", "methods", "prepare", "train", "export", "evaluate"):
        assert f"  {name} " in done.stdout
    assert "not a medical device" in done.stdout
    assert seran("--version").stdout.startswith("seran 0.")
    for heading in ("use", "train", "maintain"):
        assert f"\n{heading}:\n" in done.stdout
    assert seran("help").stdout == done.stdout
    assert seran("help", "prepare", "ixi").stdout == seran("prepare", "ixi", "--help").stdout


def test_help_is_plain_and_in_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in cli.COMMANDS:
        for words in {"train": [["seran-x2-bd"]], "prepare": [[], ["ixi"], ["open"]]}.get(name, [[]]):
            for width in ("60", "80", "400"):
                monkeypatch.setenv("COLUMNS", width)
                assert cli.run(["help", name, *words]) == 0
                text = capsys.readouterr().out
                assert text.startswith(f"usage: {' '.join(['seran', name, *words])} "), text
                assert text.isascii() or not re.search("[\u2500-\u257f\x1b]", text), text
                assert not re.search("`|None|FLOAT|INT|Raises|(^|\\W)Args", text), text
                headings = re.findall(r"^\S.*:$", text, re.MULTILINE)
                assert len(headings) == len({*headings}), text
                flow = [line for line in text.splitlines() if line.startswith(" " * 26)]
                assert all(len(line) <= min(int(width), 100) or " " not in line.strip() for line in flow)
    cli.run(["upscale", "--help"])
    text = capsys.readouterr().out
    assert "usage: seran upscale IN ... OUT [OPTIONS]" in text
    assert "  -i, --in IN ...  " in text
    assert "  -o, --out OUT    " in text
    assert re.search(r"\nHow networks are run:\n  --device DEVICE .*?\(default:\s+auto\)", text, re.DOTALL)
    assert "\n  --plane {auto,axial,coronal,sagittal}\n" in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("upscle", "unknown command upscle; did you mean upscale?"),
        ("xyz", "unknown command xyz; see seran --help"),
        ("--xyz", "unknown option --xyz; see seran --help"),
        ("help upscle", "unknown command upscle; did you mean upscale?"),
        ("upscale", "upscale needs IN and OUT; see seran upscale --help"),
        ("upscale a.nii", "upscale needs IN and OUT; see seran upscale --help"),
        ("compare a.nii", "compare needs AFTER and OUT; see seran compare --help"),
        ("compare a b c d", "unexpected d; see seran compare --help"),
        ("upscale a b --spaceing 2", "unknown option --spaceing; did you mean --spacing?"),
        ("upscale a b --spaceing=2", "unknown option --spaceing; did you mean --spacing?"),
        ("upscale a b --zzz", "unknown option --zzz; see seran upscale --help"),
        ("upscale a b --hlp", "unknown option --hlp; did you mean --help?"),
        ("upscale a b -x", "unknown option -x; see seran upscale --help"),
        ("upscale a b --scale two", "--scale two: expected a number"),
        ("upscale a b --scale=two", "--scale two: expected a number"),
        ("upscale a b --label_check --volume 1.5", "--volume 1.5: expected a whole number"),
        ("upscale a b --scale", "--scale: expected a number"),
        ("upscale a b --weights --force", "--weights: expected a value"),
        ("upscale a b --plane axal", "--plane axal: expected auto, axial, coronal or sagittal"),
        ("upscale a b --force=yes", "--force yes: expected no value"),
        ("prepare in out --scales 2 three", "--scales three: expected a whole number"),
        ("evaluate pairs --scale 5", "--scale 5: expected 2, 3 or 4"),
        ("prepare ixi out", "prepare ixi needs --contrast; see seran prepare ixi --help"),
        ("prepare ixi --contrast T1", "prepare ixi needs OUT; see seran prepare ixi --help"),
        ("weights foo", "weights foo: expected list, pull, verify, export or register"),
        ("train seran-x2-bd a b --lr x", "--lr x: expected a number"),
        ("train seran-x2-bd a b --betas 1", "--betas: expected 2 numbers"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(words.split()) == 2
    assert capsys.readouterr() == ("", f"seran: {line}\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--report", "None"), "--report: expected a value, got None"),
        (("--like", "None"), "--like: expected a value, got None"),
        (("--scale=None",), "--scale: expected a number, got None"),
        (("--isotropic", "None"), "--isotropic: expected a number or auto, got None"),
        (("--method", ""), "--method: expected a value, got an empty word"),
        (("--part", ""), "--part: expected a value, got an empty word"),
        (("--part=",), "--part: expected a value, got an empty word"),
        (("--cluster", ""), "--cluster: expected a value, got an empty word"),
        (("-i", "c.nii", ""), "upscale: expected a name, got an empty word"),
        (("--force", ""), "--force: expected no value, got an empty word"),
    ],
)
def test_what_a_script_left_unset_is_no_default(
    words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["upscale", "a.nii", "b.nii", *words]) == 2
    assert capsys.readouterr() == ("", f"seran: {line}\n")


def test_in_and_out_by_name(scan: Path, tmp_path: Path) -> None:
    assert cli.run(["upscale", "-o", str(tmp_path / "a.nii"), "--method", "bicubic", "-i", str(scan)]) == 0
    assert cli.run(["upscale", str(scan), "--out", str(tmp_path / "b.nii"), "--method", "bicubic"]) == 0
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_quiet_and_verbose(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("seran")
    before = log.level, log.handlers[:]
    words = ["upscale", str(scan), str(tmp_path / "out.nii"), "--method", "bicubic"]
    assert cli.run(["--quiet", *words]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.run([*words, "-q"]) == 2  # it is there
    assert capsys.readouterr().err.startswith("seran: ")
    assert cli.run([*words, "--force", "-v"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("bicubic: ")
    for part in (
        f"read {scan}: ",
        "load the method: ",
        "bicubic: slices along axis 2, matrix 26x34x5 -> 52x68x5",
        "in f32",
        "check bicubic: 0.",
    ):
        assert part in told.err
    assert (log.level, log.handlers) == before
    folder = tmp_path / "many"
    folder.mkdir()
    scan.rename(folder / "good.nii.gz")
    (folder / "bad.nii").write_text("hello")
    assert cli.run(["upscale", str(folder), str(tmp_path / "results"), "--method", "bicubic", "-q"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "good.nii.gz" not in told.err
    assert "bad.nii: cannot be read" in told.err
    assert progress.QUIET.get() is False


def test_a_fault_of_the_program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def methods(cards: bool = False) -> str:
        raise RuntimeError(f"cards {cards}\nof no use")

    monkeypatch.setattr("seran.apps.methods.methods", methods)
    line = "seran: unexpected RuntimeError: cards True of no use; --verbose shows where\n"
    assert cli.run(["methods", "--cards"]) == 3
    assert capsys.readouterr().err == line
    assert cli.run(["-v", "methods", "--cards"]) == 3
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.endswith(line)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from seran.cli import run; run(['--help']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"numpy", "openvino", "torch", "nibabel", "tyro"} & set(modules)


def test_help_of_training_needs_no_torch() -> None:
    code = "import sys; from seran.cli import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    for words in (["train", "--help"], ["train", "seran-x2-bd", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.stdout.splitlines()[0].startswith("usage: seran train"), done.stderr
        assert done.stdout.splitlines()[-1] == "False"
    for option, default in (("--seed", "0"), ("--augment", "0.0"), ("--threads", "0")):
        shown = done.stdout.partition(f"  {option} ")[2].partition("\n  --")[0]
        assert f"(default: {default})" in " ".join(shown.split()), shown


@pytest.mark.parametrize("precision", ["auto", "f32"])
def test_nothing_is_told_to_anyone(scan: Path, tmp_path: Path, precision: str) -> None:
    """Sharpening opens no connection and starts no process that might; the libraries below included.

    pydicom imports requests wherever it is installed, and that opens a socket.
    """
    (tmp_path / "requests.py").write_text("import socket\nsocket.socket().bind(('127.0.0.1', 0))\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ["upscale", str(scan), str(tmp_path / "out.nii.gz"), "--precision", precision]
    command = [sys.executable, "-c", LISTENING, *words]
    variables = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert "seran (seran-native.onnx" in done.stdout + done.stderr
    assert "heard" not in done.stderr, done.stderr


LISTENING = """
import sys
sys.addaudithook(lambda event, args: print("heard", event, args, file=sys.stderr)
    if event.split(".")[0] in ("socket", "subprocess") or event in ("os.fork", "os.posix_spawn") else None)
from seran.cli import main
main()
"""


@pytest.mark.parametrize("method", ["seran", "bicubic"])
def test_upscale(scan: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "out.nii.gz"
    done = seran("upscale", scan, out, "--method", method)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "26x34x5 -> 52x68x5" in done.stdout
    assert "0.900x0.800x3.300 -> 0.450x0.400x3.300 mm" in done.stdout
    image = nib.load(out)
    assert image.shape == (52, 68, 5)
    assert image.get_data_dtype() == np.float32
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 1)
    before, after = nib.load(scan).get_fdata(), image.get_fdata()
    assert after.mean() == pytest.approx(before.mean(), rel=0.03)
    assert after.min() >= 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["Method"] == method
    assert record["Scale"] == 2
    assert record["InputSHA256"] == files.sha256(scan)
    assert record["Seconds"] > 0
    if method == "seran":
        assert record["WeightsSHA256"] == weights.read(weights.shipped()["seran-native"]).digest
        assert record["Precision"] in ("bf16", "f32")
        assert "OpenVINO" in record["Engine"]


def test_upscale_scales_and_planes(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii"
    assert seran("upscale", scan, out, "--method", "bicubic", "--scale", 4).returncode == 0
    assert nib.load(out).shape == (104, 136, 5)
    across = ("--plane", "sagittal", "--method", "bicubic", "--force", "--strict", "off")
    assert seran("upscale", scan, out, *across).returncode == 0
    assert nib.load(out).shape == (26, 68, 10)


@pytest.mark.slow
def test_upscale_by_an_ensemble(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii"
    done = seran("upscale", scan, out, "--ensemble", "--precision", "f32", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seran+ ")
    assert seran("upscale", scan, tmp_path / "plain.nii", "--precision", "f32").returncode == 0
    plain = nib.load(tmp_path / "plain.nii").get_fdata()
    assert 0 < np.abs(nib.load(out).get_fdata() - plain).mean() < 0.005 * np.ptp(plain)
    done = seran("upscale", scan, out, "--method", "bicubic+", "--ensemble", "--force")
    assert done.stdout.startswith("bicubic+: "), done.stderr


def test_user_weights(scan: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.onnx"
    own.write_bytes(weights.shipped()["seran-x2-bd"].read_bytes())
    assert seran("upscale", scan, tmp_path / "a.nii", "--weights", own, "--strict", "off").returncode == 0
    own.write_bytes(own.read_bytes()[:-1] + b"!")
    assert "damaged" in fails("upscale", scan, tmp_path / "b.nii", "--weights", own)


def test_bad_requests(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*args: object) -> str:
        assert cli.run(["upscale", *map(str, args)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    out = tmp_path / "folder" / "out.nii.gz"
    out.parent.mkdir()
    good = scan.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(good[: len(good) // 2])
    (tmp_path / "note.nii").write_text("hello")
    header = nib.load(scan)
    nan = phantom((26, 34, 5))
    nan[2, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(nan, oblique()), tmp_path / "nan.nii")
    nib.save(nib.Nifti1Image(np.ones((6, 7, 5, 2, 3), np.float32), oblique()), tmp_path / "five.nii")
    nib.save(nib.Nifti1Image(np.ones((6, 7, 5), np.complex64), oblique()), tmp_path / "complex.nii")
    header.header.set_sform(oblique() @ np.diag([1, 1, 1.2, 1]), 2)
    nib.save(nib.Nifti1Image(header.get_fdata(), None, header.header), tmp_path / "forms.nii")
    (tmp_path / "scan.json").write_text("{}")
    cases = {
        (tmp_path / "none.nii", out): "no such file",
        (tmp_path / "note.nii", out): "cannot be read as NIfTI",
        (tmp_path / "cut.nii.gz", out): "cannot be read as NIfTI",
        (tmp_path / "nan.nii", out): "--fill 0",
        (tmp_path / "five.nii", out): "got 5-D",
        (scan, out, "--volume", "1"): "has one volume; leave --volume out",
        (tmp_path / "complex.nii", out): "magnitude and phase",
        (tmp_path / "forms.nii", out): "--affine sform or --affine qform",
        (scan, out, "--method", "sran"): "--method sran: expected bicubic",
        (scan, out, "--weights", tmp_path / "no.onnx"): "no such weights file",
        (scan, out, "--weights", tmp_path / "note.nii"): "expected weights written by",
        (scan, tmp_path / "nowhere" / "out.nii"): "no such folder",
        (scan, tmp_path / "out.png"): "out.png: must end in .nii",
        (scan, scan): "replace the input",
        (scan, out, "--device", "tpu"): "--device tpu: expected auto",
        (scan, out, "--threads", "-1"): "--threads -1: must be from 0 (the default) to 1024",
        (scan, out, "--threads", "2147483648"): "--threads 2147483648: must be from 0",
        (tmp_path / "nan.nii", out, "--fill", "nan"): "--fill nan: must be finite",
        (scan, scan.with_name("scan.nii")): "scan.json describes the input",
    }
    for args, reason in cases.items():
        assert reason in told(*args), args
    assert not list(out.parent.iterdir())
    assert "--scale 5: must be 1 or more and at most 4" in told(scan, out, "--scale", "5")
    for args in ((tmp_path / "nan.nii", "--fill", "0"), (tmp_path / "forms.nii", "--affine", "qform")):
        asked = [args[0], out, *args[1:], "--method", "bicubic", "--force"]
        assert cli.run(["upscale", *map(str, asked)]) == 0


def test_existing_output_needs_force(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii"
    out.write_text("precious")
    assert "--force" in fails("upscale", scan, out, "--method", "bicubic")
    assert out.read_text() == "precious"
    assert seran("upscale", scan, out, "--method", "bicubic", "--force").returncode == 0
    assert nib.load(out).shape == (52, 68, 5)
    out.unlink()
    assert "out.json exists" in fails("upscale", scan, out, "--method", "bicubic")


def test_unwritable_folder(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    drop: list[str] = []
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that capability up
        if not shutil.which("setpriv"):
            pytest.skip("running as root, and there is no setpriv to give up root's right to write anywhere")
        drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*drop, *COMMAND, "upscale", str(scan), str(folder / "out.nii"), "--method", "bicubic"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"seran: {folder}: the folder is not writable; choose another output\n"


@pytest.mark.skipif(sys.platform != "linux", reason="a file system that refuses files even to root")
def test_a_file_system_that_refuses(scan: Path) -> None:
    assert "/proc/out.nii" in fails("upscale", scan, "/proc/out.nii", "--method", "bicubic")


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
def test_a_full_disk_leaves_nothing(scan: Path, tmp_path: Path, name: str) -> None:
    """The kernel refuses to let the file grow, as a full disk does; a former result survives."""
    out = tmp_path / name
    out.write_text("former")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    line = fails("upscale", scan, out, "--method", "bicubic", "--force", preexec_fn=limit)
    assert "File too large" in line or "No space" in line
    assert out.read_text() == "former"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([scan.name, name])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    source = tmp_path / "big.nii"
    nib.save(nib.Nifti1Image(phantom((200, 180, 60)), oblique()), source)
    screen, terminal = pty.openpty()  # a real terminal, so that there is a progress bar
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [*COMMAND, "upscale", str(source), str(tmp_path / "out.nii.gz")]
    process = subprocess.Popen(command, stderr=terminal)
    os.close(terminal)
    text = ""
    while "/60" not in text:
        text += os.read(screen, 4096).decode()
    time.sleep(0.3)
    process.send_signal(how)
    assert process.wait(timeout=60) == 130
    text = os.read(screen, 65536).decode()
    os.close(screen)
    assert "interrupted" in text
    assert [p.name for p in tmp_path.iterdir()] == ["big.nii"]


def test_a_reader_of_gzip_sees_a_whole_file(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.nii.gz"
    assert seran("upscale", scan, out, "--method", "bicubic").returncode == 0
    assert len(gzip.decompress(out.read_bytes())) == 352 + 16 + 52 * 68 * 5 * 4


def test_demo(tmp_path: Path) -> None:
    done = seran("demo", "--out", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    scores = {line.split()[0]: float(line.split()[2]) for line in done.stdout.splitlines()[1:3]}
    assert scores["seran"] > scores["bicubic"] + 1
    assert str(tmp_path / "demo") in done.stdout
    low, high = (nib.load(tmp_path / "demo" / f"{n}.nii.gz") for n in ("low", "seran"))
    assert (low.shape, high.shape) == ((128, 128, 1), (256, 256, 1))
    truth = nib.load(tmp_path / "demo" / "truth.nii.gz")
    np.testing.assert_allclose(high.affine, truth.affine, atol=1e-4)
    assert nib.aff2axcodes(truth.affine) == ("P", "I", "R")
    assert (tmp_path / "demo" / "demo.png").stat().st_size > 50_000


def test_methods_lists_what_is_shipped() -> None:
    lines = seran("methods").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == list(SYSTEMS)
    row = next(line for line in lines if line.startswith("seran"))
    for part in ("SERAN", "2021", "3.17M / 3.35M / 3.31M", "x2-bd", "Zhang et al., CVPR"):
        assert part in row
    assert "bd for bicubic reductions" in lines[-1]
    assert "train your own" in next(line for line in lines if line.startswith("csn"))
    cards = json.loads(seran("methods", "--cards").stdout)
    assert cards["seran-x2-bd"]["sha256"] == weights.read(weights.shipped()["seran-x2-bd"]).digest


@pytest.mark.slow
def test_from_raw_scans_to_a_sharper_one(scan: Path, tmp_path: Path) -> None:
    """Prepare → train (two calls) → export → evaluate → upscale, as a researcher would type it."""
    for i in (2, 4, 15, 1):  # by their hashes: train, train, val, test
        nib.save(nib.Nifti1Image(phantom((62, 75, 4), i), oblique()), tmp_path / f"sub-{i}_T2w.nii.gz")
    scan.rename(tmp_path / "kept.nii.gz")
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in tmp_path.glob("sub-*"):
        path.rename(raw / path.name)
    pairs, run, own = tmp_path / "pairs", tmp_path / "run", tmp_path / "own.onnx"
    done = seran("prepare", raw, pairs, "--scales", 2)
    assert done.returncode == 0, done.stderr
    assert "4 volumes (2 train, 1 val, 1 test)" in done.stdout
    settings = ("--patch", 8, "--last-patch", 8, "--batch", 1, "--threads", 2, "--warmup", 1)
    for steps in (1, 2):
        done = seran("train", "seran-x2-bd", pairs, run, "--steps", steps, *settings)
        assert done.returncode == 0, done.stderr
        assert f"step {steps} of {steps} (done)" in done.stdout
    done = seran("export", run, own)
    assert done.returncode == 0, done.stderr
    assert "not finished" not in done.stdout
    assert "--force" in fails("export", run, own)
    done = seran("evaluate", pairs, "--weights", own, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "| T2 | 1 | seran |" in done.stdout
    assert (tmp_path / "report.md").read_text() == done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["baseline"] == "bicubic"
    both = ("--weights", own, weights.shipped()["srcnn-x2-bd"])
    done = seran("evaluate", pairs, "--methods", "bicubic", "srcnn", "seran+", *both)
    assert done.returncode == 0, done.stderr
    assert "| T2 | 1 | srcnn |" in done.stdout
    assert "| T2 | 1 | seran+ |" in done.stdout
    assert "holds weights of seran; add seran" in fails(
        "evaluate", pairs, "--methods", "bicubic", "srcnn", *both
    )
    assert "two files are called own" in fails("evaluate", pairs, "--weights", own, own)
    done = seran(
        "upscale", tmp_path / "kept.nii.gz", tmp_path / "out.nii", "--weights", own, "--strict", "off"
    )
    assert done.returncode == 0, done.stderr
    assert "own.onnx" in done.stdout


@pytest.mark.slow
def test_training_refuses_unknown_recipes(tmp_path: Path) -> None:
    assert "train seran-x9: unknown recipe; did you mean seran-x" in fails(
        "train", "seran-x9", tmp_path, tmp_path
    )
    assert "train xyz: unknown recipe; see seran train --help" in fails("train", "xyz", tmp_path, tmp_path)
    done = seran("train", "--help")
    assert done.returncode == 0
    assert "seran-x2-bd-paper" in done.stdout
    assert "train needs RECIPE, DATA and RUN; see seran train --help" in fails("train")
    made = ("train", "seran-x2-bd", tmp_path, tmp_path)
    assert "manifest.json" in fails(*made)
    assert "--validate-every 0: must be 1 or more" in fails(*made, "--validate-every", 0)


def test_scans_named_in_two_places_are_not_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """An option of many values that comes twice would keep only the last of them."""
    assert cli.run(["upscale", "-i", "a.nii", "--in", "b.nii", "-o", "out"]) == 2
    assert (
        capsys.readouterr().err == "seran: --in: expected once, with all its values behind it, got 2 of it\n"
    )


def test_options_that_are_no_json_are_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In our words alone, not the parser's help."""
    assert cli.run(["train", "seran-x2-bd", "a", "b", "--options", "{bad"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("seran: --options: Expecting property name"), told
    assert "helptext" not in told
