"""Build the page: `python web/build.py RUNTIME.tgz FOLDER`, which `make web` calls, without any package.

RUNTIME.tgz is the package onnxruntime-web, whose files must be those of `onnxruntime-web.lock`.
"""

import gzip
import hashlib
import json
import re
import shutil
import sys
import tarfile
from pathlib import Path

NETWORK = "fast-x2-bd"  # the shipped weights that the page runs
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'"
)
HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "seran"
VIEWER = PACKAGE / "quality" / "viewer"
FILLED = ("index.html", "sw.js")  # with what is only known here
RUNTIME = {
    "ort.webgpu.min.mjs": "ort.js",  # a name that every web server knows the type of
    "ort-wasm-simd-threaded.asyncify.mjs": "wasm.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "wasm.packed",  # gzip, and no server unpacks what is named so
}


def runtime(package: Path) -> dict[str, bytes]:
    """The files of ONNX Runtime that are needed, by the names that they get."""
    _, *lines = (HERE / "onnxruntime-web.lock").read_text().splitlines()
    digests = {name: digest for digest, name in map(str.split, lines)}
    made = {}
    with tarfile.open(package) as archive:
        for name, short in RUNTIME.items():
            opened = archive.extractfile(f"package/dist/{name}")
            data = opened.read() if opened else b""
            if hashlib.sha256(data).hexdigest() != digests[name]:
                sys.exit(f"onnxruntime-web: {name}: not the bytes in web/onnxruntime-web.lock")
            made[f"ort/{short}"] = gzip.compress(data, 6, mtime=0) if short.endswith(".packed") else data
    return made


def page(package: Path) -> dict[str, bytes]:
    """All files of the page by their names."""
    own = [*HERE.glob("*.html"), *HERE.glob("*.css"), *HERE.glob("*.js"), *HERE.glob("core/*.js")]
    made = {path.relative_to(HERE).as_posix(): path.read_bytes() for path in own} | runtime(package)
    for path in (VIEWER / name for name in ("niivue.umd.js", "view.js", "report.css")):
        made[path.name] = path.read_bytes()
    made[f"{NETWORK}.onnx"] = (PACKAGE / "weights" / "shipped" / f"{NETWORK}.onnx").read_bytes()
    licences = {"seran": HERE.parent / "LICENSE", "NiiVue": VIEWER / "niivue.LICENSE"}
    licences["ONNX Runtime"] = HERE / "onnxruntime-web.LICENSE"
    texts = [f"{name}\n\n{path.read_text()}" for name, path in licences.items()]
    made["licences.txt"] = f"\n{'-' * 80}\n\n".join(texts).encode()
    return filled(made)


def filled(made: dict[str, bytes]) -> dict[str, bytes]:
    """With versions, policy and the list of all files in those that state them."""
    version = re.search(r'__version__ = "(.*)"', (PACKAGE / "__init__.py").read_text())
    assert version
    known = {
        "version": version[1],
        "network": f"{NETWORK}.onnx",
        "runtime": f"ONNX Runtime Web {(HERE / 'onnxruntime-web.lock').read_text().split()[0]}",
        "niivue": (VIEWER / "niivue.lock").read_text().split()[0],
    }
    made["about.js"] = f"export const ABOUT = {json.dumps(known)};\n".encode()
    names = ["./", *sorted(made.keys() - {"sw.js"})]
    digest = hashlib.sha256(b"".join(name.encode() + made[name] for name in sorted(made))).hexdigest()[:16]
    known |= {"policy": POLICY, "digest": digest, "files": json.dumps(names)}
    for name in FILLED:
        made[name] = re.sub(r"\$(\w+)", lambda m: known[m[1]], made[name].decode()).encode()
    return made


def build(package: Path, folder: Path) -> None:
    """Write the page to a folder, in place of what is there."""
    made = page(package)
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    print(f"{folder}: {len(made)} files, {sum(map(len, made.values())) / 1e6:.1f} MB")  # noqa: T201


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
