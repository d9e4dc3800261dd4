"""Training and trying out the native network on a machine with a GPU for a short time and no package index.

    python paper/native/kit.py pack OUT LIST.csv ...       # here: scans of the lists, in shards of 12 MiB
    python paper/native/kit.py unpack KIT FROM ...         # there: what has come so far; again for the rest
    python paper/native/kit.py train KIT RUN --device cuda --minutes 12 --result RESULT
    python paper/native/kit.py check KIT RESULT --device cuda

`unpack` takes shards, wheels and the parts of a checkpoint. README.md beside this file has the whole order.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = """
import runpy, sys
_, folder, commit, *sys.argv = sys.argv
sys.path.insert(0, folder)
import measure
if commit:
    measure.commit = lambda: commit
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a benchmark that states this commit, because a copy of a checkout may know none."""
EXTRA = ["pytest", "beartype", "tyro", "onnxruntime", "openvino", "nibabel"]
"""What `check` would like to have; it names what is not there."""


def paths(kit: Path) -> list[str]:
    """Where this checkout and the wheels of a kit are imported from."""
    return [str(ROOT / "src"), str(ROOT / "paper" / "native"), str(kit / "site")]


def pack(arguments: argparse.Namespace) -> None:
    """Scans into shards."""
    import shards

    splits = ("train", "val")
    rows = shards.pack(shards.scans(arguments.lists, splits, arguments.most), arguments.out, arguments.mib)
    made = sorted(arguments.out.glob("shard-*.zip"))
    sizes = ", ".join(f"{path.stat().st_size / shards.MIB:.1f}" for path in made)
    sys.stderr.write(f"{len(rows)} volumes in {len(made)} shards of {sizes} MiB\n")


def unpack(arguments: argparse.Namespace) -> None:
    """What has come, to where it is used."""
    import shards

    shards.unpack(arguments.kit, arguments.sources)


def train(arguments: argparse.Namespace) -> None:
    """The loop of train.py."""
    import torch
    import train as loop

    if arguments.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    names = {field.name for field in dataclasses.fields(loop.Options)}
    given = {k: v for k, v in vars(arguments).items() if k in names and v is not None}
    loop.train(arguments.kit, arguments.run, loop.Options(**given))


def check(arguments: argparse.Namespace) -> None:
    """Tests for the device, rates of drawing and training, both benchmarks; what did not run is named."""
    out, kit, device = arguments.result.absolute(), arguments.kit.absolute(), arguments.device
    out.mkdir(parents=True, exist_ok=True)
    import shards

    pairs = kit / "pairs"
    if not (pairs / "manifest.json").is_file():
        shards.pairs(kit, pairs)
    python, bench = [sys.executable, "-u"], ROOT / "benchmarks"
    program = [*python, "-c", BENCHMARK, str(bench), arguments.commit]
    training = [*program, str(bench / "train.py"), "--data", str(pairs), "--device", device]
    training += ["--seconds", "10", "--rounds", "2"] + ["--batch", "128"] * (device == "cuda")
    speed = [*program, str(bench / "speed.py"), "--device", device, "--slices", "24", "--repeats", "3"]
    pytest = [*python, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-W", "default"]
    tests, engines = (str(ROOT / "tests" / f"test_{name}.py") for name in ("simulate", "engines"))
    commands = {
        "rates": [*python, str(Path(__file__)), "rates", str(kit), "--device", device],
        "tests-simulate": [*pytest, "--noconftest", "-c", os.devnull, "--rootdir", str(ROOT), tests],
        "tests-engines": [*pytest, engines, "-k", "recorded_graphs"],
        "benchmark-train": training,
        "benchmark-speed": speed,
    }
    absent = [name for name in EXTRA if not _there(name, kit)]
    lines = [f"not installed here: {', '.join(absent)}"] if absent else []
    before = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths(kit), str(ROOT)])}
    for name, command in commands.items():
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=before, capture_output=True, text=True, timeout=arguments.limit
            )
            text, code = done.stdout + done.stderr, str(done.returncode)
        except subprocess.TimeoutExpired as late:
            text, code = "".join(str(x) for x in (late.stdout, late.stderr) if x), f"over {arguments.limit} s"
        took = time.perf_counter() - began
        why = text.strip().splitlines()[-1:] if code != "0" else []
        words = "ran" if code == "0" else "FAILED"
        lines.append(f"{name}: {words} ({took:.0f} s, exit {code}) {' '.join(why)}".rstrip())
        sys.stderr.write(lines[-1] + "\n")
        (out / "check.txt").write_text("\n".join(lines) + "\n")
        with (out / "check-output.txt").open("a") as file:
            file.write(f"== {name}: {' '.join(command)}\n{text}\n")
    if (bench / "results.md").is_file():
        shutil.copy(bench / "results.md", out / "results.md")
    sys.stdout.write("\n".join(lines) + "\n")


def _there(name: str, kit: Path) -> bool:
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(name, [*sys.path, *paths(kit)]) is not None


def rates(arguments: argparse.Namespace) -> None:
    """Patches a second of drawing alone and of whole steps, at each scale."""
    import shards
    import torch
    import train as loop

    options = loop.Options(task=arguments.task, device=arguments.device)
    task, scans = loop.TASKS[arguments.task], shards.drawn(arguments.kit)
    began = time.perf_counter()
    source = task.draw(scans, 0, arguments.device)
    run = loop.Run(task.network(), 1e-5, arguments.device)
    sys.stdout.write(f"{len(scans)} volumes taken to the device in {time.perf_counter() - began:.1f} s\n")
    wait = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None

    def timed(step: object, seconds: float) -> float:
        count, repeats = 0, 0
        wait()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or repeats < 2:
            count, repeats = count + step(), repeats + 1  # type: ignore[operator]
            if repeats % 8 == 0:
                wait()
        wait()
        return count / (time.perf_counter() - start)

    for name, size in task.sizes[arguments.device].items():
        for scale in task.shares:

            def one(scale: int = scale, size: loop.Size = size) -> int:
                return len(source.batch(run.step, scale, size)[0])

            one()
            sys.stdout.write(f"{name} x{scale} {size}: drawing {timed(one, 1):.0f} patches/s\n")

    def step() -> int:
        before = run.patches
        loop.learn(run, source, options)
        return run.patches - before

    for _ in range(4):
        step()
    sys.stdout.write(f"training {timed(step, 8):.1f} patches/s\n")
    if arguments.device == "cuda":
        sys.stdout.write(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most\n")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)

    def command(function: object, *places: str) -> argparse.ArgumentParser:
        one = commands.add_parser(function.__name__, help=function.__doc__)  # type: ignore[attr-defined]
        one.set_defaults(function=function)
        for place in places:
            one.add_argument(place, type=Path)
        return one

    one = command(pack, "out")
    one.add_argument("lists", type=Path, nargs="+", help="CSV files of scans")
    one.add_argument("--mib", type=float, default=12, help="of a shard, at most")
    one.add_argument("--most", type=int, default=0, help="slices of a volume, evenly apart; 0: all")
    command(unpack, "kit").add_argument("sources", type=Path, nargs="+", help="files, or folders of them")
    one = command(train, "kit", "run")
    for name in ("minutes", "stop", "save", "lr"):
        one.add_argument(f"--{name}", type=float)
    for name in ("every", "seed"):
        one.add_argument(f"--{name}", type=int)
    for name in ("weights", "result"):
        one.add_argument(f"--{name}", type=Path)
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--task", choices=("native", "fast", "isotropic"), default="native")
    one.add_argument("--compiled", action="store_true", help="the body by torch.compile")
    one = command(check, "kit", "result")
    one.add_argument("--commit", default="", help="to state in benchmarks, where git knows none")
    one.add_argument("--limit", type=float, default=120, help="seconds of each program")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one = command(rates, "kit")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.add_argument("--task", choices=("native", "fast", "isotropic"), default="native")
    return made


def main(words: Sequence[str] | None = None) -> None:
    """Run a command; what a user can put right is one line."""
    arguments = parser().parse_args(words)
    sys.path[:0] = paths(getattr(arguments, "kit", Path()))
    from seran.errors import BadInput

    try:
        arguments.function(arguments)
    except BadInput as error:
        sys.exit(f"kit.py: {error}")


if __name__ == "__main__":
    main()
