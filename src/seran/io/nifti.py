"""NIfTI-1 and -2.

A NIfTI file may place its voxels twice: by the qform (rotation, scanner) and by the sform (any affine).
Readers differ in which they prefer, so both are written, each with the code the input had. Where the user
chose the qform before an sform in another space, the code of that is negative in the header of a `Volume`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import SEEK_END, BufferedIOBase
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Extension, intent_codes
from numpy import ndarray

from seran import grid, progress
from seran.errors import BadInput
from seran.io import voxels
from seran.io.voxels import Found, Reading, Receiver, Writer, readable
from seran.volume import Volume

FORM = "NIfTI", voxels.UNREADABLE
SIZE = 0.01  # part by which voxels of two spaces may differ: a stretch leaves no millimetres to trust
TOLERANCE = 0.05  # voxels that sform and qform may lie apart: the qform's float32 alone can cost hundredths
HAIR = 1.005  # the length of a quaternion that is 1 but for rounding
WIDEST = 32767  # voxels along an axis that NIfTI-1 can state
UNITS = {1: 1e3, 3: 1e-3}  # codes of metre and micron, and the millimetres in each
KINDS = {
    348: (nib.Nifti1Header, nib.nifti1.Nifti1PairHeader),
    540: (nib.Nifti2Header, nib.nifti2.Nifti2PairHeader),
}  # by the size of a header; of a single file, and of a pair
NOT_SCALAR = {*range(1004, 1011), 2002, 2003, 2004, *range(2006, 2010), 2016, 2017, *range(3000, 3100)}
"""Intents of vectors, matrices, points, coefficients and CIFTI's tables."""
MEANING = *(f"intent_{end}" for end in ("code", "name", "p1", "p2", "p3")), "descrip", "aux_file", "toffset"
"""Fields of a header that say what voxels mean, and not where they lie."""


def read(path: Path, how: Reading) -> Found:
    """Read a scan or a series; see `seran.io.read_series`."""
    files = voxels.files_of(path)
    head, body = files[0], files[-1]
    with readable(head, FORM), voxels.opened(head) as file:
        header, sizes = _header(file, head is not body)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
    x, y, z, count = voxels.shaped(body, shape, dtype, voxels.packed(body))
    named = checked(head, header)
    need, single = x * y * z * count * dtype.itemsize, head is body
    with readable(body, FORM), voxels.opened(body) as file:
        has = voxels.length(file, need)
    least = header.sizeof_hdr + 4 if single else 0
    with readable(head, FORM), voxels.opened(head) as file:
        voxels.refuse_cut(body, need, has - max(least, header.get_data_offset()))
        _extend(header, file, has - need if single else None)
        if left := has - need - header.get_data_offset():
            progress.log.warning("%s: %s bytes follow its voxels and are left out", body, f"{left:,}")
        slope, intercept = header.get_slope_inter()
        scaling = slope or 1, intercept or 0
        proxy = voxels.proxy(body, (x, y, z, count), dtype, header.get_data_offset())
        header["vox_offset"] = 0  # of what is written, where it follows from the extensions
        in_mm(header)
    if how.affine == "qform" or (how.affine != "sform" and header["sform_code"] <= 0):
        _refuse_sizes(path, sizes, (x, y, z))
    matrix = voxels.usable_affine(path, _transform(path, header, (x, y, z), how.affine))

    def volume(t: int) -> Volume:
        data = voxels.filled(path, proxy, t, how, FORM, scaling)
        return Volume(data, matrix, header.copy(), named)

    return count, volume


def _header(file: BufferedIOBase, pair: bool) -> tuple[nib.Nifti1Header, list[float]]:
    """The header at the begin of a file, without extensions, and the sizes of voxels as they are stored.

    In the header those that are 0 have become 1, and those below 0 are without their sign.
    """
    start = file.read(4)
    size = next((n for n in KINDS for order in ("little", "big") if n == int.from_bytes(start, order)), 0)
    if not size:
        raise ValueError("expected 348 or 540, the size of a header, as its first number")
    kind, stored = KINDS[size][pair], start + file.read(size - 4)
    header = kind(stored)
    _normalise(header, HAIR)
    return header, kind(stored, check=False)["pixdim"][1:4].tolist()


def _refuse_sizes(path: Path, sizes: Sequence[float], shape: tuple[int, int, int]) -> None:
    """Raise `BadInput` for voxels of no size along an axis that has several; readers take some other one.

    Args:
        path: the file.
        sizes: of voxels as they are stored.
        shape: of the array.
    """
    if any(size <= 0 for size, n in zip(sizes, shape, strict=True) if n > 1):
        got = grid.dimensions(sizes, ".6g", " x ")
        raise BadInput(f"{path}: expected voxels above 0 mm, got {got} (pixdim); correct its header")


def _extend(header: nib.Nifti1Header, file: BufferedIOBase, latest: int | None) -> None:
    """Add extensions to a header as bytes, whatever is in them; `ValueError` for voxels that begin before.

    Args:
        header: of the file, before them; if it does not say where the voxels begin, it learns it.
        file: open.
        latest: byte at which the voxels of a single file can begin; None for a pair.
    """
    first, said = header.sizeof_hdr + 4, header.get_data_offset()
    stop = file.seek(0, SEEK_END) if latest is None else latest
    file.seek(first - 4)
    more, found, ends = file.read(4)[:1].strip(b"\0"), [], [first]
    while more and ends[-1] + 16 <= stop:
        length, code = np.frombuffer(file.read(8), header.endianness + "i4").tolist()
        if length < 8 or ends[-1] + length > stop:
            break
        found.append(Nifti1Extension(code, file.read(length - 8).rstrip(b"\0")))
        ends.append(ends[-1] + length)
    if latest is not None:
        fill = ends[-1] == latest > first  # then there is no other place for the voxels
        said = said or (latest if fill else first * (not more))
        if said != latest if fill else said < ends[-1] and said not in ends:
            after = f"expected voxels after its header and extensions, at byte {ends[-1]}"
            raise ValueError(f"{after}, got byte {header.get_data_offset()}")
        header["vox_offset"] = said
        found = [extension for extension, end in zip(found, ends[1:], strict=True) if end <= said]
    header.extensions.extend(found)


def checked(path: Path, header: nib.Nifti1Header) -> int | None:
    """The axis of its slices, see `Volume.slices`; `BadInput` for values that are no intensities."""
    code, got = int(header["intent_code"]), ""
    if code in NOT_SCALAR:
        got = f"intent {code} ({intent_codes.label[code] if code in intent_codes.value_set() else 'CIFTI'})"
    if max(header.get_data_shape()[4:], default=1) > 1:
        got = got or f"{header.get_data_shape()[4]} along the fifth axis"
    if got:
        raise BadInput(
            f"{path}: expected one intensity per voxel, got {got}: vectors, matrices and coefficients "
            "are no scans; save what is an image as one of its own, without that intent"
        )
    axis: int | None = header.get_dim_info()[2]
    return axis


def in_mm(header: nib.Nifti1Header) -> float:
    """Change a header that counts in metres or microns to millimetres; how many each of its units was."""
    length = UNITS.get(int(header["xyzt_units"]) & 7, 1.0)
    if length != 1:
        header["pixdim"][1:4] *= length
        for name in (f"{kind}_{axis}" for kind in ("qoffset", "srow") for axis in "xyz"):
            header[name] = header[name] * length
        header["xyzt_units"] = int(header["xyzt_units"]) & ~7 | 2
    return length


def _normalise(header: nib.Nifti1Header, longest: float = np.inf) -> None:
    """Shorten a quaternion that is longer than 1 by rounding: readers could not take its root."""
    length = sum(float(header[f"quatern_{name}"]) ** 2 for name in "bcd") ** 0.5
    for name in "bcd" if 1 < length < longest else "":
        header[f"quatern_{name}"] = header[f"quatern_{name}"] / (length * (1 + 1e-15))


def _transform(path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int], choice: str) -> grid.Affine:
    """The affine that counts: of ``choice``, or what both say; the sform, of two spaces of one size."""
    if choice in ("sform", "qform"):
        return _chosen(path, header, choice)
    with readable(path, FORM):
        (sform, s_code), (qform, q_code) = header.get_sform(coded=True), header.get_qform(coded=True)
        best = header.get_best_affine()
    if s_code and q_code and choice != "either" and (apart := _apart(shape, sform, qform)):
        if s_code != q_code and np.isfinite(apart) and _alike(sform, qform):
            return best
        raise BadInput(
            f"{path}: sform (code {s_code}) and qform (code {q_code}) place the scan up to {apart:.3g} mm "
            "apart; say which is right with --affine sform or --affine qform"
        )
    return best


def _chosen(path: Path, header: nib.Nifti1Header, choice: str) -> grid.Affine:
    """A transform. It replaces the other if that has the same code: another code is another space."""
    other = "qform" if choice == "sform" else "sform"
    with readable(path, FORM):
        affine, code = getattr(header, f"get_{choice}")(coded=True)
    if affine is None:
        raise BadInput(f"{path}: its {choice} code is 0, so there is no {choice} to trust")
    voxels.usable_affine(path, affine)
    if int(header[f"{other}_code"]) == code:
        header.set_sform(affine, code)
        header.set_qform(affine, code, strip_shears=True)
        return affine
    try:
        voxels.usable_affine(path, getattr(header, f"get_{other}")())
        header["sform_code"] *= 1 if choice == "sform" else -1
    except (BadInput, ValueError):
        if header[f"{other}_code"]:
            progress.log.warning("%s: its %s cannot be used; its code is 0 in the result", path, other)
        header[f"{other}_code"] = 0
    return affine


def receive(out: Writer) -> Receiver:
    """Write volumes, to one file or a pair, with the transforms and codes of the header of the first."""
    with ExitStack() as stack:
        opened = [stack.enter_context(voxels.created(path)) for path in voxels.files_of(out.path)]
        head, body = opened[0], opened[-1]
        first = yield
        with voxels.without_remarks():
            header = _blank(first, out.shape, out.dtype, head is not body).header
            header.write_to(head)
        if head is body:
            body.write(bytes(header.get_data_offset() - body.tell()))
        yield from voxels.stream(first, out.count, header.get_data_dtype(), body.write)


def labelled(labels: Volume, like: Volume) -> nib.Nifti1Header:
    """The header of labels on the grid of another volume, see `seran.io.relabelled`."""
    header, source = like.header, labels.header
    if not isinstance(header, nib.Nifti1Header):
        header = _blank(replace(like, header=None), like.data.shape, np.dtype(np.float32), False).header
    if not isinstance(source, nib.Nifti1Header):
        source = nib.Nifti1Header()
    header = header.copy()
    for name in MEANING:
        header[name] = source[name]
    header["pixdim"][4:] = source["pixdim"][4:]
    header["xyzt_units"] = int(header["xyzt_units"]) & 7 | int(source["xyzt_units"]) & ~7
    header.extensions[:] = source.extensions
    return header


def image(volume: Volume) -> nib.Nifti1Image:
    """A volume as nibabel has it in memory, with the header that `receive` would write."""
    blank = _blank(volume, volume.data.shape, np.dtype(np.float32), False)
    return type(blank)(volume.data, blank.header.get_best_affine(), blank.header)


def _blank(volume: Volume, shape: tuple[int, ...], dtype: np.dtype, pair: bool) -> nib.Nifti1Pair:
    """An image of no memory with the header for volumes like this one."""
    known = isinstance(volume.header, nib.Nifti1Header)
    source = volume.header if known else nib.Nifti1Header()
    header = source.copy()
    if max(shape) > WIDEST and not isinstance(header, nib.Nifti2Header):
        header = _wider(header)
    if not _same_slices(source, volume):
        for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
            header[name] = 0  # the timing of slices that are no longer these
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)  # a pair would lose the spacing of a header without axes
    header["cal_min"] = header["cal_max"] = 0
    if known:
        _move(header, source, volume)
    else:
        header.set_xyzt_units("mm")
        header.set_sform(volume.affine, 1)
        _rotate(header, volume.affine, 1)
    version = 2 if isinstance(header, nib.Nifti2Header) else 1
    zeros = np.broadcast_to(np.zeros((), dtype), shape)
    made = getattr(nib, f"Nifti{version}{'Pair' if pair else 'Image'}")(zeros, None, header)
    made.header.set_slope_inter(1, 0)
    return made


def _wider(header: nib.Nifti1Header) -> nib.Nifti2Header:
    """The same as NIfTI-2, for more voxels along an axis than NIfTI-1 can state."""
    made = nib.Nifti2Header(endianness=header.endianness)
    for name in set(made.keys()) & set(header.keys()) - {"sizeof_hdr", "magic", "vox_offset"}:
        made[name] = header[name]
    made.extensions.extend(header.extensions)
    return made


def _move(header: nib.Nifti1Header, source: nib.Nifti1Header, volume: Volume) -> None:
    """Move both transforms as the voxels of a volume were moved, and the axes that are named."""
    best = _best(source)
    change = np.linalg.inv(best) @ volume.affine
    (sform, s_code), (qform, q_code) = source.get_sform(coded=True), source.get_qform(coded=True)
    header.set_sform(volume.affine if s_code >= 0 else sform @ change, abs(s_code))
    if qform is None:
        _rotate(header, volume.affine, 0)
    else:
        moved = qform @ change
        together = not _apart((*source.get_data_shape(), 1, 1)[:3], best, qform)
        if together and _apart(volume.grid.shape, volume.affine, moved):  # by voxels that are finer
            moved = volume.affine
        if np.abs(_cosines(qform) - _cosines(moved)).max() < 1e-4:
            # The rotation is unchanged: keep its stored quaternion, which re-deriving would round again.
            header["pixdim"][1:4] = grid.spacing(moved)
            for name, value in zip("xyz", moved[:3, 3], strict=True):
                header[f"qoffset_{name}"] = value
        elif not _rotate(header, moved, int(q_code)):
            progress.log.warning("no qform can hold the shear of the result; its code there is 0")
            if not s_code:
                header["sform_code"] = q_code
    turned = np.abs(np.linalg.inv(_cosines(best)) @ _cosines(volume.affine))
    axes = turned.argmax(0).tolist() if turned.max(0).min() > 0.99 else []  # those that the new ones were
    header.set_dim_info(*(axes.index(i) if i in axes else None for i in source.get_dim_info()))


def _rotate(header: nib.Nifti1Header, affine: grid.Affine, code: int) -> bool:
    """Write a qform; whether it could be: it holds no shears, and has the code 0 then."""
    cosines = _cosines(affine)
    able = bool(np.abs(cosines.T @ cosines - np.eye(3)).max() < 1e-4)
    header.set_qform(affine, code * able, strip_shears=True)
    _normalise(header)
    return able


def _best(header: nib.Nifti1Header) -> grid.Affine:
    """Where the header of a `Volume` places its scan."""
    return header.get_qform() if header["sform_code"] < 0 else header.get_best_affine()


def _apart(shape: tuple[int, int, int], sform: grid.Affine, qform: grid.Affine) -> float:
    """How far two transforms that disagree place a corner of the field of view apart, in mm; else 0."""
    with np.errstate(over="ignore", invalid="ignore"):  # NIfTI-2 holds numbers whose square is infinite
        apart = np.linalg.norm(grid.corners(shape, sform) - grid.corners(shape, qform), axis=1).max()
        return 0.0 if apart <= TOLERANCE * grid.spacing(sform).min() else float(apart)


def _alike(sform: grid.Affine, qform: grid.Affine) -> bool:
    """Whether two transforms may be of one scan in two spaces: voxels of one size, neither a mirror image."""
    hands = [np.linalg.det(_cosines(affine)) for affine in (sform, qform)]
    return bool(hands[0] * hands[1] > 0) and np.allclose(grid.spacing(sform), grid.spacing(qform), rtol=SIZE)


def _cosines(affine: Float[ndarray, "4 4"]) -> Float[ndarray, "3 3"]:
    return affine[:3, :3] / grid.spacing(affine)


def _same_slices(source: nib.Nifti1Header, volume: Volume) -> bool:
    """Whether what was acquired slice by slice still is: their axis (the third, unless it says another)."""
    axis = source.get_dim_info()[2]
    axis = 2 if axis is None else axis
    step = np.linalg.inv(_best(source)) @ volume.affine
    kept = np.allclose(step[axis], np.eye(4)[axis], atol=1e-3)
    return kept and (*source.get_data_shape(), 1, 1)[axis] == volume.data.shape[axis]
