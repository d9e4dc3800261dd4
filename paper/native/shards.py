"""Training volumes in shards small enough to be carried, and a checkpoint in parts.

A voxel is coded as a 16-bit number, `CODE` steps to the 99.9th percentile of its scan. Of a slice, the
differences from the left or from the upper neighbour are stored, whichever are smaller, by LZMA: a sum along
rows or columns brings them back. A shard is a plain zip file of coded volumes.
"""

import json
import lzma
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy import ndarray

from seran import files, grid
from seran.errors import BadInput

CODE = 2048
"""Finer than float16, as which volumes are unpacked, from half of the 99.9th percentile on."""
MIB = 1 << 20
PART = 12 * MIB
"""Bytes of a part of a checkpoint."""
FACTS = (
    "source", "subject", "contrast", "split", "licence", "repository", "sha256", "band", "spacing"
)  # fmt: skip
SHARDS, VOLUMES, PARTS = "shards.json", "volumes.json", "parts.json"


def encode(stack: ndarray) -> bytes:
    """Bytes of uint16 slices (n, h, w)."""
    left, up = stack.copy(), stack.copy()
    left[:, :, 1:] -= stack[:, :, :-1]
    up[:, 1:] -= stack[:, :-1]
    left, up = (d.view(np.int16) for d in (left, up))
    upwards = np.array([_cost(b) < _cost(a) for a, b in zip(left, up, strict=True)])
    steps = np.where(upwards[:, None, None], up, left)
    folded = ((steps << 1) ^ (steps >> 15)).view(np.uint16)  # small ones of either sign become small numbers
    planes = folded.reshape(-1, 1).view(np.uint8).T.tobytes()
    return lzma.compress(upwards.tobytes() + planes, preset=4)


def _cost(steps: ndarray) -> int:
    return int(np.abs(steps.astype(np.int32)).sum())


def decode(data: bytes, shape: tuple[int, int, int]) -> ndarray:
    """The uint16 slices of `encode`."""
    raw = np.frombuffer(lzma.decompress(data), np.uint8)
    upwards, planes = raw[: shape[0]].astype(bool), raw[shape[0] :].reshape(2, -1)
    folded = np.ascontiguousarray(planes.T).view(np.uint16).reshape(shape)
    stack = (folded >> 1) ^ (0 - (folded & 1))
    for one, up in zip(stack, upwards, strict=True):
        np.cumsum(one, axis=0 if up else 1, dtype=np.uint16, out=one)
    return stack


def coded(stack: ndarray) -> tuple[ndarray, int]:
    """uint16 slices of a stack with 99.9th percentile 1, and the code of its 0."""
    steps = np.rint(stack * CODE)
    zero = int(np.clip(-steps.min(), 0, 8 * CODE))
    return np.clip(steps + zero, 0, 65535).astype(np.uint16), zero


def decoded(stack: ndarray, zero: int) -> ndarray:
    """float16 slices."""
    return ((stack.astype(np.float32) - zero) / CODE).astype(np.float16)


def scans(lists: Sequence[Path], splits: Sequence[str], most: int) -> Iterator[tuple[dict, ndarray]]:
    """Facts and float32 stack of each scan, on the k-space support that was measured.

    Args:
        lists: CSV files of scans.
        splits: of the scans.
        most: slices of each, evenly apart; 0: all.
    """
    from seran.data.prepare import PrepareOptions, high_resolution  # nibabel, which only packing needs
    from seran.data.sources import find, read_source

    for source in [s for one in lists for s in find(one) if s.split in splits]:
        stack, band, affine = high_resolution(read_source(source), PrepareOptions(), None)
        stack = stack / np.float32(np.percentile(stack, 99.9))
        if 0 < most < len(stack):
            stack = stack[np.linspace(0, len(stack) - 1, most).round().astype(int)]
        row = {"split": source.split, "contrast": source.contrast, "source": source.path.name}
        row |= {"sha256": source.sha256, "repository": source.repository, "licence": source.licence}
        size = tuple(grid.spacing(affine).tolist())
        yield row | {"subject": source.subject, "band": band, "shape": stack.shape, "spacing": size}, stack


def pack(volumes: Iterable[tuple[dict, ndarray]], out: Path, megabytes: float = 12) -> list[dict]:
    """Write shards, their digests and the facts of their volumes.

    The splits and contrasts are spread evenly over the shards, so that some of them suffice to begin with.

    Args:
        volumes: facts and stacks with 99.9th percentile 1.
        out: a new folder.
        megabytes: MiB of a shard, at most, if no volume is larger.
    """
    if out.exists():
        raise BadInput(f"{out} exists; remove it or name another folder")
    rows, data = [], {}
    for row, stack in volumes:
        steps, zero = coded(stack)
        name = f"{len(rows):03d}"
        data[name] = encode(steps)
        rows.append({"file": f"{name}.npy", "zero": zero, **row, "shape": stack.shape})
        sys.stderr.write(
            f"{row['split']} {row['contrast']} {row['source']} {len(data[name]) / MIB:.1f} MiB\n"
        )
    shards: list[list[dict]] = []
    room = 0.0
    for row in _spread(rows):
        size = len(data[row["file"][:3]]) + 200  # its name, twice, and what zip says of it
        if not shards or size > room:
            shards.append([])
            room = megabytes * MIB - 22
        shards[-1].append(row)
        room -= size
    digests = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(out) as folder:
        folder.mkdir()
        for i, members in enumerate(shards):
            path = folder / f"shard-{i:02d}.zip"
            with zipfile.ZipFile(path, "w") as file:
                for row in members:
                    row["shard"] = path.name
                    file.writestr(zipfile.ZipInfo(row["file"]), data[row["file"][:3]])
            digests[path.name] = files.sha256(path)
        (folder / VOLUMES).write_text(json.dumps(rows, indent=1))
        (folder / SHARDS).write_text(json.dumps(digests, indent=1))
    return rows


def _spread(rows: list[dict]) -> list[dict]:
    """Every kind of scan evenly over the whole."""
    kinds: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        kinds.setdefault((row["split"], row["contrast"]), []).append(row)
    placed = []
    for kind in kinds.values():
        placed += [((i + 0.5) / len(kind), row["file"], row) for i, row in enumerate(kind)]
    return [row for *_, row in sorted(placed, key=lambda one: one[:2])]


def unpack(kit: Path, sources: Sequence[Path]) -> None:
    """Unpack what has come: shards, wheels, parts of a checkpoint; what is there already is left alone.

    Args:
        kit: the folder that all goes to.
        sources: files, or folders of them.
    """
    found = [p for one in sources for p in (sorted(one.iterdir()) if one.is_dir() else [one])]
    kit.mkdir(parents=True, exist_ok=True)
    for path in found:
        if path.name in (SHARDS, VOLUMES, PARTS):
            _keep(path, kit / path.name)
    for path in found:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as file:
                file.extractall(kit / "site")
        elif path.match("shard-*.zip"):
            _unpack_shard(kit, path)
        elif path.match("checkpoint-*.part"):
            _refuse_damaged(path, _listed(kit, PARTS)["parts"])
            _keep(path, kit / path.name)
        elif path in sources and path.name not in (SHARDS, VOLUMES, PARTS):
            raise BadInput(f"{path}: expected shards, parts of a checkpoint, their lists, or wheels")
    for text in missing(kit):
        sys.stderr.write(f"not there yet: {text}\n")


def missing(kit: Path) -> list[str]:
    """What the lists in a kit name and what has not come."""
    shards = _listed(kit, SHARDS) if (kit / SHARDS).is_file() else {}
    parts = _listed(kit, PARTS)["parts"] if (kit / PARTS).is_file() else {}
    left = [name for name, digest in shards.items() if not _has(kit, name, digest)]
    return left + [name for name in parts if not (kit / name).is_file()]


def _listed(kit: Path, name: str) -> dict:
    if not (kit / name).is_file():
        raise BadInput(f"{kit}: bring {name} first, it says what the digests must be")
    return json.loads((kit / name).read_text())


def _keep(path: Path, place: Path) -> None:
    """Copy, and refuse to mix two packs; a newer checkpoint takes the place of an older one."""
    data = path.read_bytes()
    if place.is_file() and place.read_bytes() == data:
        return
    if place.is_file() and place.name in (SHARDS, VOLUMES):
        raise BadInput(f"{path} is of another pack than {place}; name another folder")
    if place.name == PARTS:
        for old in place.parent.glob("checkpoint-*.part"):
            old.unlink()
    with files.atomic(place) as part:
        part.write_bytes(data)


def _refuse_damaged(path: Path, digests: dict[str, str]) -> None:
    if path.name not in digests:
        raise BadInput(f"{path}: expected one of {', '.join(digests)}")
    if (got := files.sha256(path)) != digests[path.name]:
        raise BadInput(
            f"{path} is damaged: expected the SHA-256 {digests[path.name]}, got {got}; bring it again"
        )


def _has(kit: Path, shard: str, digest: str) -> bool:
    mark = kit / f"{shard}.sha256"
    return mark.is_file() and mark.read_text() == digest


def _unpack_shard(kit: Path, path: Path) -> None:
    digests = _listed(kit, SHARDS)
    _refuse_damaged(path, digests)
    if _has(kit, path.name, digests[path.name]):
        sys.stderr.write(f"{path.name}: already there\n")
        return
    rows = [row for row in _listed(kit, VOLUMES) if row["shard"] == path.name]  # type: ignore[index]

    def one(row: dict) -> None:
        with zipfile.ZipFile(path) as file:
            stack = decode(file.read(row["file"]), tuple(row["shape"]))
        with files.atomic(kit / row["file"]) as part, part.open("wb") as out:
            np.save(out, decoded(stack, row["zero"]))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, rows))
    (kit / f"{path.name}.sha256").write_text(digests[path.name])
    sys.stderr.write(f"{path.name}: {len(rows)} volumes\n")


def volumes(kit: Path, split: str) -> list[dict]:
    """Rows of a split that have come, each with its ``stack``."""
    if not (kit / VOLUMES).is_file():
        raise BadInput(f"{kit}: expected a folder that `kit.py unpack` made, but it has no {VOLUMES}")
    rows = [r for r in json.loads((kit / VOLUMES).read_text()) if r["split"] == split]
    return [r | {"stack": np.load(kit / r["file"])} for r in rows if (kit / r["file"]).is_file()]


def drawn(kit: Path) -> list[tuple[str, ndarray, float]]:
    """Volumes to train on: contrast, slices, and their distance in pixels."""
    rows = volumes(kit, "train")
    return [(r["contrast"], r.pop("stack"), r["spacing"][0] / min(r["spacing"][1:])) for r in rows]


def split(checkpoint: Path, out: Path, step: int) -> None:
    """A checkpoint of a step in parts of at most `PART` bytes with their digests.

    Bytes of equal rank of all numbers lie together, which makes the parts smaller.
    """
    raw = checkpoint.read_bytes()
    planes = np.frombuffer(raw + bytes(-len(raw) % 4), np.uint8).reshape(-1, 4).T.tobytes()
    data = zlib.compress(planes, 1)
    parts = {
        f"checkpoint-{i:02d}.part": data[at : at + PART] for i, at in enumerate(range(0, len(data), PART))
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in (*parts, PARTS)]
    with files.together(*paths) as made:
        for path, one in zip(made, parts.values(), strict=False):
            path.write_bytes(one)
        digests = {path.name: files.sha256(file) for path, file in zip(paths[:-1], made, strict=False)}
        facts = {"parts": digests, "sha256": files.sha256(checkpoint), "size": len(raw), "step": step}
        made[-1].write_text(json.dumps(facts, indent=1))
    for old in out.glob("checkpoint-*.part"):
        if old.name not in parts:
            old.unlink()


def join(parts: Path, checkpoint: Path) -> None:
    """The checkpoint of all parts in a folder; `BadInput` if one is missing or damaged."""
    facts = _listed(parts, PARTS)
    for name in facts["parts"]:
        if not (parts / name).is_file():
            raise BadInput(f"{parts}: {name} has not come yet")
        _refuse_damaged(parts / name, facts["parts"])
    planes = zlib.decompress(b"".join((parts / name).read_bytes() for name in facts["parts"]))
    raw = np.frombuffer(planes, np.uint8).reshape(4, -1).T.tobytes()[: facts["size"]]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(checkpoint) as part:
        part.write_bytes(raw)
        if files.sha256(part) != facts["sha256"]:
            raise BadInput(f"{parts}: what its parts make is not the checkpoint that was split")


def pairs(kit: Path, out: Path, slices: int = 24) -> None:
    """A prepared set (`seran.data.pairs`) of bicubic pairs at x2, from the volumes of a kit, for benchmarks.

    Args:
        kit: unpacked volumes.
        out: the folder.
        slices: of each volume, at most.
    """
    from seran import degrade
    from seran.data.pairs import Packed, PreparedSet
    from seran.sharpen import Normalisation

    made = PreparedSet(out, "bd", False, True, [])
    for scale in (1, 2):
        made.file("", scale).parent.mkdir(parents=True, exist_ok=True)
    for row in [*volumes(kit, "train"), *volumes(kit, "val")]:
        high, name = row["stack"][:slices].astype(np.float32), row["file"][:3]
        low = degrade.named("bd")((2, 2), False)(high)
        np.save(made.file(name), high)
        np.save(made.file(name, 2), low)
        unit = Normalisation.of(low)
        facts = {k: row[k] for k in FACTS} | {"high_sha256": files.sha256(made.file(name))}
        ends = (float(high.min()), float(high.max()))
        unit_of = {"2": [unit.offset, unit.gain]}
        made.volumes.append(Packed(name=name, shape=high.shape, range=ends, unit=unit_of, **facts))
    made.write_manifest()
