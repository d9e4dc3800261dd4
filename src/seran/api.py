"""The library's front door: `read`, `upscale`, `write` and `load`, on the same path as the command.

>>> import numpy as np, seran
>>> disc = 100 / (1 + np.exp((np.hypot(*np.indices((48, 40)) - 20) - 13) / 2))
>>> voxels = np.random.default_rng(0).normal(100 + disc[..., None], 1, (48, 40, 3))
>>> affine = np.diag([0.9, 0.8, 5.0, 1.0])
>>> seran.upscale((voxels, affine), method="bicubic")
Scan(96x80x3 voxels of 0.450x0.400x5.000 mm, RAS; bicubic, x2: PASS)
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from seran import files, grid, io, methods, scratch
from seran.engines import Engine
from seran.errors import BadInput, counted
from seran.given import hinting, refuse_types
from seran.io import metaimage, nifti
from seran.io.voxels import Reading, filled, refuse_lossy, shaped, usable_affine
from seran.job import labels, record
from seran.job.options import Options, ReadOptions, Scanner, Target, Transform
from seran.job.record import Record, sidecar, slice_thickness
from seran.job.run import refuse_output, remove_maps
from seran.job.steps import Steps
from seran.sharpen import Across, Method
from seran.volume import Volume

NAME = "the scan"  # of what has none, where it is at fault
Readable = Any  # a `Scan`, a path, an image of nibabel, or (voxels, affine): x, y, z; to mm (RAS+)


@dataclass(frozen=True)
class Scan:
    """A scan, or what became of one.

    Attributes:
        volume: voxels (x, y, z), their affine, and the header they came with.
        record: of a result, how it came about and what its checks say; None for what was only read.
        name: of the file that it was read from.
        sharpened: whether it was read from a result of seran's, by the record beside it.
        path: of that file: the JSON beside it may say how thick the slices are.
        maps: of a result, by name, on its grid and in its units: see ``maps`` of `upscale`.
    """

    volume: Volume
    record: Record | None = None
    name: str = ""
    sharpened: bool = False
    path: Path | None = None
    maps: dict[str, Volume] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.volume, Volume):
            got = type(self.volume).__name__
            raise BadInput(f"Scan: expected a seran.volume.Volume(voxels, affine), got {got}")

    @property
    def data(self) -> Float[ndarray, "x y z"]:
        """Intensities (x, y, z), in the order of the file's axes and in its units; float32."""
        return self.volume.data

    @property
    def affine(self) -> Float[ndarray, "4 4"]:
        """Voxel index (x, y, z) to mm (RAS+), 4 x 4: the first of its columns is a step along x."""
        return self.volume.affine

    def to_nibabel(self) -> nib.Nifti1Image:
        """The same as an image of nibabel, with both transforms under the codes that the scan had."""
        return io.nifti.image(self.volume)

    def __repr__(self) -> str:
        shape, size = grid.dimensions(self.data.shape), grid.dimensions(grid.spacing(self.affine), ".3f")
        made, record = "", self.record
        if record is not None:
            times = f", {record.more_slices:.3g} times the slices" * (record.slice_factor > 1)
            made = f"; {record.method}, x{record.scale}{times}: {record.verdict}"
        return f"Scan({shape} voxels of {size} mm, {grid.orientation(self.affine)}{made})"


def read(
    path: str | Path,
    *,
    affine: Transform = "auto",
    fill: float | None = None,
    volume: int | None = None,
    series: str | None = None,
) -> Scan:
    """Read a scan, in its own units; `BadInput` if that cannot be.

    Args:
        path: a file (NIfTI, MGH, NRRD, MetaImage), or the folder of a DICOM series.
        affine: which transform of the header is right, when they disagree.
        fill: value for voxels that are NaN, infinite or beyond 1e30; without it such a scan is refused.
        volume: which one of several (4-D, echoes), counted from 0; must be chosen where there are several.
        series: which series of a DICOM folder, by number or UID.
    """
    refuse_types(path=path, fill=fill, volume=volume, series=series)
    how, file = ReadOptions(affine=affine, fill=fill, volume=volume, series=series), Path(path)
    found = io.read_series(file, how.affine, how.fill, only=how.volume, pick=how.series)
    if found.count > 1:
        raise BadInput(f"{path}: holds {found.count} volumes; choose one: volume=0, for example")
    return Scan(next(found.volumes), name=file.name, sharpened=record.is_result(file), path=file.absolute())


def write(scan: Scan, path: str | Path, *, dtype: str = "float32", force: bool = False) -> None:
    """Write a scan or a result with its maps and its record; nothing at all on `BadInput` or an OSError.

    The checks in the record are those of the voxels as `upscale` gave them, before a type rounds them.

    Args:
        scan: as `read` or `upscale` gave it.
        path: the file; its ending decides the format. Without an ending: the folder of a DICOM series.
        dtype: numpy's name of the type of a voxel; integers are rounded, and refused if they cannot hold it.
        force: replace what is there.
    """
    refuse_types(path=path)
    if not isinstance(scan, Scan):
        raise BadInput(f"expected a Scan, as read and upscale give it, got {type(scan).__name__}")
    out = Path(path)
    if not out.name:
        raise BadInput(f"path {str(path)!r}: expected the name of a file, or of the folder of a DICOM series")
    images = dict(zip(record.outputs(out, tuple(scan.maps)), (scan.volume, *scan.maps.values()), strict=True))
    for path in images:
        refuse_output(path, force)
    refuse_lossy(scan.volume, _voxel(dtype))
    beside = [sidecar(out)] if scan.record else []
    former = None if scan.record else record.read(out)  # of what is replaced by a scan without one
    maps = record.maps_of(out, whole=True)
    written = [path for image in images for path in io.written(image)]
    with files.together(*written, *beside, force=force) as parts:
        hidden = dict(zip(written, parts, strict=False))
        names = [hidden[io.written(image)[0]] for image in images]
        try:
            for volume, what, name in zip(images.values(), ("", *scan.maps), names, strict=True):
                with io.writer(name, 1, "float32" if what else dtype, record.number(what)) as writer:
                    writer.add(volume, scan.record.said(what) if scan.record else "")
        except BadInput as error:  # the hidden file means nothing to a user
            raise BadInput(str(error).replace(str(parts[0]), str(out))) from error
        if scan.record:
            replace(scan.record, maps=tuple(scan.maps)).sealed(names).write(parts[-1])
        if former:
            sidecar(out).unlink()
    remove_maps(maps, list(images))


@hinting
def upscale(
    scan: Readable,
    *,
    scale: float | None = None,
    spacing: float | None = None,
    like: str | Path | None = None,
    isotropic: bool | float | None = None,
    method: str | None = None,
    weights: str | Path | None = None,
    ensemble: bool = False,
    adapt: float | None = None,
    consistent: bool = True,
    maps: bool = False,
    uncertainty: bool = False,
    plane: grid.Plane = "auto",
    force_plane: bool = False,
    scanner: Scanner = Scanner(),  # noqa: B008
    label_check: bool = True,
    engine: Engine = Engine(),  # noqa: B008
) -> Scan:
    """Sharpen a scan in or across its slices; `BadInput` for a scan or options that cannot be used.

    Args:
        scan: a `Scan`, a path, an image of nibabel, or voxels (x, y, z) and their affine (4, 4; to mm, RAS+).
        scale: how many times finer, from 1 (native weights only) to 4; 2 unless another grid is asked for.
        spacing: of the result in the plane of the slices, in mm.
        like: an image whose grid the result is put on.
        isotropic: make thick slices thin: every axis at the finest spacing (True), or at so many mm.
        method: `seran methods` lists them; without it that of the weights, or seran.
        weights: a weights file, or the name of shipped weights.
        ensemble: average over the eight symmetries of a slice: a little better, eight times slower.
        adapt: seconds to fine-tune the network across slices on the scan; the extra train is needed.
        consistent: change a result of weights as little as makes it leave the scan by no more than its noise.
        maps: give ``Scan.maps["estimated"]``, too: what of the result the scan did not measure.
        uncertainty: give ``Scan.maps["uncertainty"]``, too: how far each voxel may be off.
        plane: which slices to sharpen.
        force_plane: sharpen these even if they lie across thick ones.
        scanner: what was done to the scan before: measured, but for what is stated here.
        label_check: refuse what looks like labels, phase or a result of seran's.
        engine: device, precision and threads.
    """
    refuse_types(scale=scale, spacing=spacing, like=like, isotropic=isotropic, method=method)
    refuse_types(weights=weights, adapt=adapt, scanner=scanner, engine=engine)
    refuse_types(consistent=consistent, maps=maps, uncertainty=uncertainty)
    target = Target(scale, spacing, None if like is None else Path(like), _millimetres(isotropic))
    reading = ReadOptions(plane=plane, force_plane=force_plane, label_check=label_check)
    file = None if weights is None else Path(weights)
    kept: Literal["on", "off"] = "on" if consistent else "off"
    options = Options(
        method, file, ensemble, adapt, kept, maps, uncertainty, target=target, scanner=scanner, read=reading
    )
    return _upscaled(scan, options, engine)


@dataclass(frozen=True)
class Model:
    """A method that is ready to run; may be used by several threads. See `load`.

    Attributes:
        method: the predictor and what is known of it: ``name``, ``scale``, ``weights``, ``sha256``.
        options: what `load` was given.
        engine: device, precision and threads.
    """

    method: Method | Across
    options: Options
    engine: Engine

    def __call__(self, scan: Readable) -> Scan:
        """Sharpen a scan, as `upscale` does, or raise `BadInput` if it cannot be used."""
        loaded = self.method if isinstance(self.method, Method) else None
        return _upscaled(scan, self.options, self.engine, loaded)

    def __repr__(self) -> str:
        if isinstance(self.method, Across):
            return f"Model(thick slices, {self.method.weights})"
        return f"Model({self.method.name}, x{self.method.scale}, {self.method.weights or self.method.engine})"


@hinting
def load(
    method: str | None = None,
    *,
    scale: int | None = None,
    isotropic: bool | float | None = None,
    weights: str | Path | None = None,
    ensemble: bool = False,
    plane: grid.Plane = "auto",
    scanner: Scanner = Scanner(),  # noqa: B008
    engine: Engine = Engine(),  # noqa: B008
) -> Model:
    """Load a method once, to use it on many scans; `BadInput` for weights that do not fit it, for example.

    Args:
        method: `seran methods` lists them; without it that of the weights, or seran.
        scale: 2, 3 or 4, of native weights also 1; without it that of the weights, or 2.
        isotropic: make thick slices thin, as `upscale` does.
        weights: a weights file, or the name of shipped weights.
        ensemble: average over the eight symmetries of a slice.
        plane: which slices to sharpen.
        scanner: what was done to the scans before: measured on each, but for what is stated here.
        engine: device, precision and threads.
    """
    refuse_types(method=method, scale=scale, isotropic=isotropic, weights=weights)
    refuse_types(scanner=scanner, engine=engine)
    file = None if weights is None else Path(weights)
    reading, target = ReadOptions(plane=plane), Target(scale, isotropic=_millimetres(isotropic))
    options = Options(method, file, ensemble, target=target, scanner=scanner, read=reading)
    name, default = options.implied()
    if options.thin:
        options.refuse_isotropic()
        return Model(methods.across(name, file, engine), options, engine)
    if scale is not None and scale not in (1, 2, 3, 4):
        raise BadInput(f"scale {scale:g}: expected 1, 2, 3 or 4; upscale(scan, scale={scale:g}) resamples")
    found = methods.method(name, int(scale or default), options.degradation, file, engine)
    return Model(found, options, engine)


def _millimetres(isotropic: bool | float | None) -> float | Literal["auto"] | None:
    """What `Target` takes."""
    if isinstance(isotropic, bool):
        return "auto" if isotropic else None
    return isotropic


def _voxel(dtype: str) -> np.dtype:
    """The type of a voxel of that name; `BadInput` for none, and for one that no format has."""
    try:
        named = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError):
        named = None
    if named is None or named.str[1:] not in metaimage.TYPES:
        raise BadInput(f"dtype {dtype!r}: expected numpy's name of real numbers, such as float32 or int16")
    return named


def _upscaled(scan: Readable, options: Options, engine: Engine, loaded: Method | None = None) -> Scan:
    given = _scan(scan)
    made, name = given.sharpened or given.record is not None, given.name or NAME
    if options.read.label_check:
        labels.refuse_other_kinds(Path(name), given.volume, made)
    thickness = slice_thickness(given.path) if options.thin and given.path else None
    steps = Steps(given.volume, options, engine, loaded, scan=name, thickness=thickness)
    steps.sharpened = made
    image, maps, stated = steps(given.volume)
    return Scan(image, replace(stated, input=given.name), given.name, maps=maps)


def _scan(scan: Readable) -> Scan:
    """Anything that holds a scan, as a `Scan`, or `BadInput` if it does not, or cannot be used."""
    if isinstance(scan, Scan):
        return scan
    if isinstance(scan, str | Path):
        return read(scan)
    here, file, named, unit = Path(NAME), None, None, 1.0
    if isinstance(scan, tuple) and len(scan) == 2:
        held, affine, header = scan[0], scan[1], None
    elif hasattr(scan, "dataobj") and hasattr(scan, "affine"):
        held, affine, header = scan.dataobj, scan.affine, scan.header.copy()
        given = getattr(scan, "get_filename", lambda: None)()
        if given and Path(given).name:
            file = Path(given).absolute()
            here = Path(file.name)
        if isinstance(header, nib.Nifti1Header):
            named, unit = nifti.checked(here, header), nifti.in_mm(header)
    else:
        raise BadInput(f"expected a path, a nibabel image, or (voxels, affine), got {type(scan).__name__}")
    array = _array(held)
    x, y, z, count = shaped(here, array.shape, array.dtype)
    if count > 1:
        raise BadInput(f"expected a 3-D scan, got a series of {count} volumes; give them one by one")
    data = filled(here, array.reshape((x, y, z, 1)), 0, Reading("auto", None, scratch.memory))
    try:
        matrix = np.array(affine).astype(
            float, casting="same_kind"
        )  # complex numbers and words are no affine
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        got = " ".join(str(affine).split())[:80]
        raise BadInput(f"{here}: expected an affine of 4 x 4 numbers, got {got}")
    matrix = usable_affine(here, matrix * np.array([[unit]] * 3 + [[1.0]]))
    volume = Volume(data, matrix, header, named)
    sharpened = file is not None and record.is_result(file.absolute())
    return Scan(volume, name=file.name, sharpened=sharpened, path=file) if file else Scan(volume)


def _array(held: object) -> ndarray:
    """Voxels as an array; `BadInput` for rows of several lengths, and for voxels that are masked."""
    if isinstance(held, np.ma.MaskedArray) and (masked := np.ma.count_masked(held)):
        what = f"expected voxels that all count, got {counted(int(masked), 'masked one')}"
        raise BadInput(f"{NAME}: {what}; say what takes their place: voxels.filled(0)")
    try:
        return np.asarray(held)
    except ValueError as error:
        raise BadInput(f"{NAME}: expected voxels (x, y, z), got rows of several lengths") from error
