"""Prove that two checkouts of seran give the same results, for a refactoring that must change none.

    python tests/compare_checkouts.py OLD NEW [--only NAME ...] [--keep FOLDER]

This interpreter runs every command of `CASES` with the sources of OLD and with those of NEW, each in a
scratch folder of its own that holds the same made-up scans. All that the two write is compared bit by bit,
except for what differs between any two runs: times, generated UIDs, the version. Records may gain fields but
not lose any. Other words in prose are only noted, but its numbers must agree. The exit status is 1 if
anything differs. Nothing of seran is imported: only its command line has to stay as it is.
"""

import argparse
import base64
import csv
import fnmatch
import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import onnx
import pydicom
import SimpleITK
from compare_inputs import write_inputs
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RENAMED: dict[str, str] = {"whole": "context"}
"""Fields of records, cards and tables that have another name in NEW: the old name -> the new one."""
IGNORED = {"seconds", "key", "stamp", "patches_per_s", "machine", "command", "version", "whole"}
IGNORED |= {"bytes", "file_sha256"}
"""Fields, in lower case, that must be there but may differ; files of weights grow by evidence."""
DIGESTS = {"sha256", "weightssha256"}
"""The same, beside the name of the weights that are trained here: their card states seconds."""
COMMON = {"card", "installation", "manifest", "stated"}
"""Below these, only fields that both checkouts have are compared; what one of them lacks is noted."""
GENERATED = re.compile(
    "((MediaStorage)?SOP|Series)InstanceUID|.*GroupLength|(Instance|Content|Series).*(Date|Time)"
)
"""DICOM elements that are new in every run, and a length that goes with them."""
VERSION = re.compile(r"(?<![\d.])\d+\.\d+\.\d+(?:\.?(?:dev|rc)\d+)?(?!\.?\d)")
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")

SCAN = {
    "x2": "", "x3": "--scale 3", "x4": "--scale 4", "x2.6": "--scale 2.6", "spacing": "--spacing 0.5",
    "like": "--like reference.nii.gz", "bicubic": "--method bicubic", "nlm": "--method nlm",
    "zerofill": "--method zerofill", "srcnn": "--method srcnn", "vdsr": "--method vdsr",
    "idn": "--method idn", "bicubic-x3": "--method bicubic --scale 3", "f32": "--precision f32",
    "int8": "--precision int8", "td": "--weights seran-x2-td", "coronal": "--plane coronal",
    "uint16": "--dtype uint16",
}  # fmt: skip
"""Options for one scan that all of these sharpen."""
WRONG = {
    "option": "--smooth 2", "scale": "--scale 5", "target": "--scale 2 --spacing 1", "method": "--method old",
    "weights": "--weights no.onnx", "volume": "--volume 3", "fill": "--fill much", "plane": "--plane oblique",
}  # fmt: skip
"""The same, refused."""
TRAIN = "--patch 12 --last-patch 16 --batch 2 --warmup 4 --validate-every 10"
CASES = {
    **{name: f"upscale scan.nii.gz {name}.nii.gz {options}" for name, options in SCAN.items()},
    **{f"wrong-{name}": f"upscale scan.nii.gz wrong.nii.gz {options}" for name, options in WRONG.items()},
    "wrong-labels": "upscale labels.nii.gz wrong.nii.gz", "wrong-holes": "upscale holes.nii.gz wrong.nii.gz",
    "wrong-exists": "upscale scan.nii.gz tiny.nii.gz", "wrong-recipe": "train seran-x5-bd subjects run-wrong",
    "ensemble": "upscale tiny.nii.gz ensemble.nii.gz --ensemble",
    "filled": "upscale filled.nii.gz out.nii.gz --method bicubic",
    "4-d": "upscale series.nii.gz 4-d.nii.gz", "volume": "upscale series.nii.gz volume.nii.gz --volume 1",
    "pair": "upscale pair.hdr pair-x2.hdr", "nifti-2": "upscale two.nii two-x2.nii --dtype float64",
    "mgz": "upscale scan.mgz mgz.mgz", "nrrd": "upscale scan.nrrd nrrd.nrrd",
    "mha": "upscale scan.mha mha.mha", "fill": "upscale holes.nii.gz fill.nii.gz --fill 0",
    "dicom": "upscale study derived --series 3", "dicom-to-nifti": "upscale study dicom.nii.gz",
    "folder": "upscale scans results --method srcnn",
    "folder-again": "upscale scans results --method srcnn --resume",
    "folder-part": "upscale scans results-part --part 1/3 --method bicubic",
    "report": "upscale scan.nii.gz reported.nii.gz --report report.html",
    "compare": "compare scan.nii.gz reported.nii.gz compare.html",
    "participant": "bids raw derivatives participant", "group": "bids raw derivatives group",
    "info": "info scan.nii.gz --json", "info-dicom": "info study --json", "info-installation": "info --json",
    "methods": "methods", "methods-cards": "methods --cards", "completion": "completion bash",
    "weights-list": "weights list", "weights-verify": "weights verify",
    "weights-export": "weights export srcnn-x2-bd --out weights",
    "weights-safetensors": "weights export seran-x2-td --out parameters --safetensors",
    "prepare": "prepare subjects pairs",
    "prepare-stored": "prepare subjects pairs-stored --scales 2 4 --also-stored",
    "prepare-td": "prepare subjects.csv pairs-td --degradation td --scales 2",
    "prepare-uncropped": "prepare subjects pairs-whole --scales 3 --no-fourier-crop --integer",
    "train": f"train seran-x2-bd pairs run {TRAIN} --steps 20",
    "train-resume": f"train seran-x2-bd pairs run {TRAIN} --steps 30",
    "wrong-rate": f"train seran-x2-bd pairs run {TRAIN} --steps 40 --lr 1e-3",
    "train-vdsr": f"train vdsr-x3-bd pairs run-vdsr {TRAIN} --steps 5 --augment 0.5 --precision 32-true",
    "export": "export run mine.onnx --notes trial",
    "evaluate": "evaluate pairs --slices 2 --out own --weights mine.onnx --methods bicubic nlm seran srcnn+",
    "evaluate-td": "evaluate pairs-td --split val --out td --methods zerofill seran",
    "mine": "upscale scan.nii.gz mine.nii.gz --weights mine.onnx", "calibrate": "calibrate mine.onnx pairs",
    "mine-int8": "upscale scan.nii.gz mine-int8.nii.gz --weights mine.onnx --precision int8",
    "demo": "demo --out demo",
}  # fmt: skip
"""Commands by name, in an order in which each finds what it reads."""
STATUS = {"folder": 1, "folder-again": 1} | {name: 2 for name in CASES if name.startswith("wrong-")}
"""The exit status of those that must not end with 0."""
THREADED = ("upscale", "bids", "train", "evaluate", "demo")
VIEWER = ("report", "compare")
PRINTED = {
    "info": "scan", "info-dicom": "study", "info-installation": "installation", "methods": "methods",
    "methods-cards": "card",
}  # fmt: skip
"""What those commands print whose standard output is compared."""


def exactly(fields: dict[str, Any]) -> dict[str, Any]:
    """A mapping that must not gain fields either."""
    if not fields:
        raise ValueError("nothing in it to compare")
    return {"names": sorted(fields), **fields}


def read_scan(path: Path) -> dict[str, Any]:
    """NIfTI in one file, MGH: what it means, and every byte."""
    image, content = nib.load(path), path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    return {"affine": image.affine, "voxels": np.asanyarray(image.dataobj), "bytes": content}


def read_itk(path: Path) -> dict[str, Any]:
    """NRRD and MetaImage: voxels, and the header but for the number of compressed bytes."""
    head = re.split(rb"\n\n|ElementDataFile", path.read_bytes(), maxsplit=1)[0]
    voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    return {"voxels": voxels, "header": re.sub(rb"CompressedDataSize.*", b"", head)}


def read_dicom(path: Path) -> dict[str, Any]:
    """All elements but those of `GENERATED`."""

    def plain(header: pydicom.Dataset) -> dict[str, Any]:
        return exactly({e.keyword: value(e) for e in header if not GENERATED.fullmatch(e.keyword)})

    def value(element: pydicom.DataElement) -> Any:
        if element.VR == "SQ":
            return [plain(item) for item in element.value]
        if isinstance(element.value, bytes):
            return element.value
        return VERSION.sub("VERSION", f"{element.VR} {element.value}").encode()

    header = pydicom.dcmread(path)
    return {"meta": plain(header.file_meta), "elements": plain(header)}


def read_safetensors(path: Path) -> dict[str, Any]:
    """Tensors, and what is stated besides: recipe and state, or card."""
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stated = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
    return {"tensors": exactly(tensors), "stated": stated}


def read_onnx(path: Path) -> dict[str, Any]:
    """The parameters of a weights file, which are float16, and its card."""
    model = onnx.load(path)
    halves = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    (card,) = (json.loads(p.value) for p in model.metadata_props if p.key.endswith("card"))
    return {"parameters": exactly({t.name: onnx.numpy_helper.to_array(t) for t in halves}), "card": card}


def read_report(path: Path) -> dict[str, Any]:
    """The verdicts of a report with the numbers of their reasons, and its volumes."""
    page = path.read_text()
    checks = re.findall(r"<td[^>]*>(PASS|WARN|FAIL|not known)</td>(?:<th>.*?</th>)?<td>(.*?)</td>", page)
    data = re.findall(r'id="(\w+)-data">([^<]*)<', page)
    volumes = {name: gzip.decompress(base64.b64decode(text)) for name, text in data}
    verdicts = {f"check {i}": [verdict, f"because {text}"] for i, (verdict, text) in enumerate(checks)}
    return {"checks": exactly(verdicts), "volumes": exactly(volumes)}


def read_events(path: Path) -> dict[str, Any]:
    """The curves that TensorBoard draws."""
    log = EventAccumulator(str(path)).Reload()
    return exactly({tag: [[e.step, e.value] for e in log.Scalars(tag)] for tag in log.Tags()["scalars"]})


READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(("*.nii", "*.nii.gz", "*.mgz"), read_scan),
    **dict.fromkeys(("*.nrrd", "*.mha"), read_itk),
    "*.csv": lambda path: list(csv.DictReader(path.read_text().splitlines())),
    "*.tsv": lambda path: list(csv.DictReader(path.read_text().splitlines(), delimiter="\t")),
    "*.dcm": read_dicom,
    "*.png": matplotlib.image.imread,
    "*.npy": np.load,
    "*.safetensors": read_safetensors,
    "*.onnx": read_onnx,
    "*tfevents*": read_events,
    "*manifest.json": lambda path: {"manifest": json.loads(path.read_text())},
    "*.json": lambda path: json.loads(path.read_text()),
    "*SHA256SUMS": lambda path: re.sub(r"^[0-9a-f]+", "", path.read_text(), flags=re.M),  # evidence grows
    "*group.html": lambda path: re.sub(
        r"<time>[^<]*</time>|<td>[\d.]+</td>(?=<td>[^<]*</td></tr>)", "", path.read_text()
    ),  # without date and seconds
    "*.html": read_report,
    **dict.fromkeys(("*.hdr", "*.img"), Path.read_bytes),
    "*": Path.read_text,
}
"""How a file becomes what is compared: by the first pattern that its name matches."""


def differences(old: Any, new: Any, at: str = "", common: bool = False) -> Iterator[str]:
    """Where the contents of two files differ, a line each; those that begin with ``noted`` are harmless.

    With ``common``, fields that only one side has are harmless, too.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        trained = any(isinstance(value, str) and value == "mine.onnx" for value in old.values())
        for name, value in old.items():
            renamed, inside = RENAMED.get(name, name), common or name in COMMON
            if renamed not in new:
                yield f"{'noted: ' * common}{at}/{name} is gone"
            elif name.lower() not in (IGNORED | DIGESTS if trained else IGNORED):
                yield from differences(value, new[renamed], f"{at}/{name}", inside)
        gained = set(new) - {RENAMED.get(name, name) for name in old}
        yield from (f"noted: {at}/{name} is new" for name in sorted(gained))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{at}/{i}", common)
    elif isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            yield f"{at}: {old.shape} {old.dtype} -> {new.shape} {new.dtype}"
        elif old.tobytes() != new.tobytes():
            far = np.abs(old.astype(float) - new.astype(float))
            yield f"{at}: {np.count_nonzero(old != new)} of {old.size} values, by up to {np.nanmax(far):.3g}"
    elif isinstance(old, str) and isinstance(new, str) and " " in old:
        old, new = (VERSION.sub("VERSION", text) for text in (old, new))
        said = f"{at}: {old[:60]!r} -> {new[:60]!r}"
        if NUMBER.findall(old) != NUMBER.findall(new):
            yield f"{said}, other numbers"
        elif old != new:
            yield f"noted: {said}"
    elif type(old) is not type(new) or repr(old) != repr(new):
        yield f"{at}: {old!r:.60} -> {new!r:.60}"


def written(root: Path) -> dict[str, tuple[Path, int]]:
    """Every file by its name, less the time in the names of TensorBoard, with when it was changed."""
    paths = sorted(p for p in root.rglob("*") if p.is_file())
    names = [re.sub(r"tfevents.*", "tfevents", p.relative_to(root).as_posix()) for p in paths]
    return {f"{n}-{names[:i].count(n)}" if "tfevents" in n else n: (p, p.stat().st_mtime_ns)
            for i, (n, p) in enumerate(zip(names, paths, strict=True))}  # fmt: skip


def python(words: list[str], checkout: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the sources of a checkout, which stays as it is, in a scratch folder."""
    own = dict.fromkeys(("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "SERAN_CACHE"), f"{root}-caches")
    own |= {"PYTHONPATH": str(checkout / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=os.environ | own, capture_output=True, text=True
    )


def compared(name: str, checkouts: list[Path], roots: list[Path]) -> list[str]:
    """What differs between the checkouts in one case."""
    before = [written(root) for root in roots]
    words = ["-m", "seran", *shlex.split(CASES[name])]
    words += ["--threads", "1"] * (words[2] in THREADED)  # so that sums have one order
    ended = [python(words, *side) for side in zip(checkouts, roots, strict=True)]
    after = [written(root) for root in roots]
    found = []
    for which, process in zip(("OLD", "NEW"), ended, strict=True):
        last = (process.stderr.strip().splitlines() or [""])[-1]
        judged = process.returncode == 1 and re.search("FAIL(:| in) ", last)  # the records say that, too
        if (process.returncode != STATUS.get(name, 0) and not judged) or "Traceback" in process.stderr:
            found.append(f"{which}: exit status {process.returncode}, expected {STATUS.get(name, 0)}: {last}")
    if name in PRINTED:
        parse = json.loads if "--json" in CASES[name] or "--cards" in CASES[name] else str
        try:
            found += differences(*({PRINTED[name]: parse(process.stdout)} for process in ended), "printed")
        except ValueError as error:
            found.append(f"printed no JSON: {error}")
    if after[0].keys() != after[1].keys():
        found.append(f"only one wrote {', '.join(sorted(after[0].keys() ^ after[1].keys()))}")
    for file in sorted(after[0].keys() & after[1].keys()):
        if any(now[file] != then.get(file) for now, then in zip(after, before, strict=True)):
            read = next(reader for pattern, reader in READERS.items() if fnmatch.fnmatch(file, pattern))
            try:
                found += differences(*(read(now[file][0]) for now in after), file)
            except Exception as error:  # what cannot be read cannot be called the same
                found.append(f"{file} cannot be compared: {error!r}")
    return found


def main() -> int:
    """Run the cases, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description="Prove that two checkouts of seran give the same results.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="cases, like 'train*'")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is written in this new folder")
    asked = parser.parse_args()
    checkouts = [asked.old.resolve(), asked.new.resolve()]
    chosen = [name for name in CASES if any(fnmatch.fnmatch(name, pattern) for pattern in asked.only)]
    base = asked.keep or Path(tempfile.mkdtemp(prefix="seran-compare-"))
    roots = [base.resolve() / side for side in ("old", "new")]
    roots[0].mkdir(parents=True)
    write_inputs(roots[0])
    shutil.copytree(roots[0], roots[1])
    began, lacking, counts = time.perf_counter(), [], {"same": 0, "DIFFERS": 0, "skipped": 0}
    for checkout, root in zip(checkouts, roots, strict=True):
        used = python(["-c", "import seran; print(seran.__file__)"], checkout, root)
        if not used.stdout.startswith(f"{checkout}/src"):
            parser.error(f"{checkout}/src is not what runs, but {used.stdout or used.stderr}")
        lacking += [] if any(checkout.glob("src/seran/**/niivue.umd.js")) else [str(checkout)]
    for name in chosen:
        if name in VIEWER and lacking:
            verdict, found = "skipped", [f"no viewer in {' and '.join(lacking)}, see `make viewer`"]
        else:
            found = compared(name, checkouts, roots)
            verdict = "same" if all(text.startswith("noted") for text in found) else "DIFFERS"
            found = [" ".join(text.split())[:200] for text in found]
            found.sort(key=lambda text: text.startswith("noted"))
        counts[verdict] += 1
        more = f"; and {len(found) - 4} more" * (len(found) > 4)
        sys.stdout.write(f"{name:20} {verdict}{': ' * bool(found)}{'; '.join(found[:4])}{more}\n")
        sys.stdout.flush()
    if not asked.keep:
        shutil.rmtree(base)
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    sys.stdout.write(f"{len(chosen)} commands: {summary}; {time.perf_counter() - began:.0f} s\n")
    return int(counts["DIFFERS"] > 0 or not counts["same"])


if __name__ == "__main__":
    sys.exit(main())
