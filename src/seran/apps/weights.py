"""``seran weights``: where the networks' weights are, whether they are intact, and how they travel."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seran import facts, files, progress
from seran import weights as library
from seran.apps.arguments import nearest
from seran.data import fetch
from seran.errors import BadInput

SUMS = "SHA256SUMS"


def _table(names: Sequence[str]) -> str:
    """Name, megabytes, SHA-256 and state, a line each."""
    rows = [(name, *library.listed()[name], library.state(name)) for name in names]
    return "\n".join(f"{name:16}{n / 1e6:6.1f} MB  {digest}  {where}" for name, n, digest, where in rows)


def _verify(names: Sequence[str]) -> str:
    """Compare every file with the registry, byte by byte."""
    here = {name: path for name, path in library.at_hand().items() if name in names}
    for name, path in here.items():
        if library.state(name).startswith("damaged"):
            raise BadInput(f"{path}: damaged, not what the registry lists; remove it and pull it again")
    return f"{len(here)} of {len(names)} are here, and every byte of them is right"


def _pull(names: Sequence[str], mirrors: Sequence[str]) -> str:
    """Download what is not here; a mirror that fails leads to the next."""
    if not mirrors:
        raise BadInput("weights pull needs --mirror URL, or SERAN_MIRROR (several apart by spaces)")
    _verify(names)
    missing = [name for name in names if name not in library.at_hand()]
    library.cache_folder().mkdir(parents=True, exist_ok=True)
    for name in missing:
        said: list[str] = []
        if not any(_pulled(f"{mirror.rstrip('/')}/{name}.onnx", name, said) for mirror in mirrors):
            raise BadInput("; ".join(said))
    return f"{len(missing)} pulled, {len(names) - len(missing)} were here"


def _pulled(url: str, name: str, said: list[str]) -> bool:
    """Whether weights could be downloaded; if not, ``said`` has why."""
    size, digest = library.listed()[name]
    try:
        with progress.bar(size, "B", name) as bar:
            path = library.cache_folder() / f"{name}.onnx"
            fetch.fetch(url, path, size, digest, progress=lambda have: bar.update(have - bar.n))
        return True
    except BadInput as error:
        said.append(str(error))
        return False


def _export(names: Sequence[str], out: Path | None, safetensors: bool) -> str:
    """Copy weights to a folder, with their sums, for a machine without a network, or as safetensors."""
    if out is None:
        raise BadInput("weights export needs --out FOLDER")
    at_hand = library.at_hand()
    absent = " ".join(name for name in names if name not in at_hand)
    if absent:
        raise BadInput(f"{absent}: not here; seran weights pull {absent}")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        with files.atomic(out / f"{name}.{'safetensors' if safetensors else 'onnx'}") as part:
            if safetensors:
                part.write_bytes(_tensors(at_hand[name]))
            else:
                shutil.copyfile(at_hand[name], part)
    made = sorted(p for p in out.iterdir() if p.suffix in (".onnx", ".safetensors"))
    with files.atomic(out / SUMS) as part:
        part.write_bytes(b"".join(os.fsencode(f"{files.sha256(p)}  {p.name}\n") for p in made))
    return f"{out}: {len(names)} files; `sha256sum -c {SUMS}` verifies them, `seran weights pull` takes them"


def _tensors(path: Path) -> bytes:
    """A weights file as safetensors."""
    from safetensors.numpy import save  # a machine that only sharpens may lack it

    held = library.read(path)
    told = {"card": facts.dumps(asdict(held.card)), "evidence": held.evidence.json()}
    return save(library.tensors(held.data), told)


def _register() -> str:
    """Write the registry of the weights in this source tree."""
    rows = [f"{n},{p.stat().st_size},{files.sha256(p)}\n" for n, p in library.shipped().items()]
    with files.atomic(library.REGISTRY) as part:
        part.write_text("name,bytes,sha256\n" + "".join(rows))
    return f"{library.REGISTRY}: {len(rows)} files"


def weights(
    action: Literal["list", "pull", "verify", "export", "register"],
    names: Annotated[tuple[str, ...], "NAME ..."] = (),
    /,
    mirror: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, "URL"] = (),
    out: Annotated[Path | None, "FOLDER"] = None,
    safetensors: bool = False,
) -> str:
    """List, download, verify or copy the weights that belong to this version.

    `list`: name, size, SHA-256, place. `pull`: download those that are not here to the user's cache, resumed
    after an interruption, verified before they are used. `verify`: every byte. `export`: copies with their
    sums, to carry to a machine without a network. `register`: for developers, after new weights.

    Args:
        action: what to do.
        names: like seran-x2-bd; none for all.
        mirror: an address that has the files, as `export` writes them; may be given several times, and is
            asked in turn. Without it those in SERAN_MIRROR.
        out: folder for `export`.
        safetensors: export the parameters alone, in float32, for other programs.
    """
    known = list(library.listed())
    for name in names:
        if name not in known:
            raise BadInput(f"weights {name}: unknown; {nearest(name, known) or 'see seran weights list'}")
    chosen = list(dict.fromkeys(names)) or known
    if action == "pull":
        return _pull(chosen, mirror or os.environ.get("SERAN_MIRROR", "").split())
    if action == "export":
        return _export(chosen, out, safetensors)
    if action == "register":
        return _register()
    return _table(chosen) if action == "list" else _verify(chosen)
