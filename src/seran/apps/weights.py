"""``seran weights``: where the networks' weights are, whether they are intact, and how they travel."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from seran import files, progress
from seran import weights as library
from seran.apps import Positional
from seran.data import fetch
from seran.errors import BadInput
from seran.machine import needed

SUMS = "SHA256SUMS"


def _chosen(names: Sequence[str]) -> list[str]:
    known = library.listed()
    strange = [name for name in names if name not in known]
    if strange:
        raise BadInput(f"expected names of {', '.join(known)}, got {', '.join(strange)}")
    return list(names) or list(known)


def table(names: Sequence[str]) -> str:
    """Name, megabytes, SHA-256 and state, a line each."""
    rows = [(name, *library.listed()[name], library.state(name)) for name in names]
    return "\n".join(
        f"{name:16}{size / 1e6:6.1f} MB  {digest}  {where}" for name, size, digest, where in rows
    )


def verify(names: Sequence[str]) -> str:
    """Compare every file with the registry, byte by byte.

    Raises:
        BadInput: if one that is here is damaged.
    """
    at_hand = library.at_hand()
    here = [name for name in names if name in at_hand]
    for name in here:
        if library.state(name).startswith("damaged"):
            raise BadInput(
                f"{at_hand[name]}: damaged, not what the registry lists; remove it and pull it again"
            )
    return f"{len(here)} of {len(names)} are here, and every byte of them is right"


def _fetched(url: str, path: Path, size: int, digest: str) -> None:
    with progress.bar(size, "B", path.stem) as bar:
        fetch.fetch(url, path, size, digest, progress=lambda have: bar.update(have - bar.n))


def pull(names: Sequence[str], mirrors: Sequence[str]) -> str:
    """Download what is not here; a mirror that fails leads to the next.

    Raises:
        BadInput: if no mirror is named, or none has the right bytes.
    """
    if not mirrors:
        raise BadInput(
            "expected an address that has the files, --mirror URL (or SERAN_MIRROR, several apart by spaces)"
        )
    missing = [name for name in names if name not in library.at_hand()]
    folder = library.cache_folder()
    for name in missing:
        (size, digest), said = library.listed()[name], []
        folder.mkdir(parents=True, exist_ok=True)
        for mirror in mirrors:
            try:
                _fetched(f"{mirror.rstrip('/')}/{name}.onnx", folder / f"{name}.onnx", size, digest)
                break
            except BadInput as error:
                said.append(str(error))
        else:
            raise BadInput("; ".join(said))
    return f"{len(missing)} pulled, {len(names) - len(missing)} were here"


def export(names: Sequence[str], out: Path | None, safetensors: bool) -> str:
    """Copy weights to a folder, with their sums, for a machine without a network, or as safetensors.

    Raises:
        BadInput: if no folder is named, or weights are not here.
    """
    if out is None:
        raise BadInput("expected a folder for the files, --out FOLDER")
    at_hand = library.at_hand()
    absent = [name for name in names if name not in at_hand]
    if absent:
        raise BadInput(f"{', '.join(absent)}: not here; seran weights pull {' '.join(absent)}")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        held = library.read(at_hand[name])
        if safetensors:
            try:
                from safetensors.numpy import save
            except ModuleNotFoundError as error:
                raise needed("--safetensors", error) from error
            with files.atomic(out / f"{name}.safetensors") as part:
                told = {"card": json.dumps(asdict(held.card)), "evidence": held.evidence.json()}
                part.write_bytes(save(library.tensors(held.data), told))
        else:
            with files.atomic(out / f"{name}.onnx") as part:
                shutil.copyfile(at_hand[name], part)
    made = sorted(p for p in out.iterdir() if p.suffix in (".onnx", ".safetensors"))
    with files.atomic(out / SUMS) as part:
        part.write_text("".join(f"{files.sha256(p)}  {p.name}\n" for p in made))
    return f"{out}: {len(names)} files; `sha256sum -c {SUMS}` verifies them, `seran weights pull` takes them"


def register() -> str:
    """Write the registry of the weights in this source tree."""
    rows = [f"{n},{p.stat().st_size},{files.sha256(p)}\n" for n, p in library.shipped().items()]
    with files.atomic(library.REGISTRY) as part:
        part.write_text("name,bytes,sha256\n" + "".join(rows))
    return f"{library.REGISTRY}: {len(rows)} files"


def weights(
    action: Positional[Literal["list", "pull", "verify", "export", "register"]],
    names: Positional[tuple[str, ...]] = (),
    mirror: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    out: Path | None = None,
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

    Raises:
        BadInput: for unknown names, damaged files, a mirror that does not have them.
        OSError: if a file cannot be written.
    """
    if action == "register":
        return register()
    chosen = _chosen(names)
    if action == "list":
        return table(chosen)
    if action == "verify":
        return verify(chosen)
    if action == "export":
        return export(chosen, out, safetensors)
    return pull(chosen, mirror or os.environ.get("SERAN_MIRROR", "").split())
