"""What the package makes of small scans, for the tests of the page in `web/`: tests/golden/web.json.

`python -m tests.web_golden` writes it anew. Every scan is made here. In place of a network stands a predictor
whose numbers float32 holds exactly, and which makes some voxels negative.
"""

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import ImplicitVRLittleEndian, JPEGLosslessSV1

from seran import files, grid, io, kspace
from seran.errors import BadInput
from seran.job import labels
from seran.sharpen import Method, Normalisation, refuse_small, upscale
from tests.conftest import oblique, shifted
from tests.test_dicom import change, series

GOLDEN = Path(__file__).parent / "golden" / "web.json"
Make = Callable[[Path], Path]


def phases(low: np.ndarray) -> np.ndarray:
    """Each voxel becomes four, of which each has a gain of its own."""
    high = np.empty((len(low), 2 * low.shape[1], 2 * low.shape[2]), np.float32)
    for a in (0, 1):
        for b in (0, 1):
            high[:, a::2, b::2] = low * np.float32(1 + a / 4 - b / 8) - np.float32(1 / 16)
    return high


def voxels(dtype: str, shape: tuple[int, ...] = (7, 6, 5), low: int = 0, high: int = 250) -> np.ndarray:
    """Whole numbers from dark to bright, a third of them random: what is all random looks like phase."""
    ramp = sum(np.ix_(*(np.linspace(0, 2 / 3 / len(shape), n) for n in shape)))
    part = ramp + np.random.default_rng(high - low).random(shape) / 3
    return (low + part * (high - low)).astype(int).astype(dtype)


def nifti(
    data: np.ndarray,
    name: str = "scan.nii",
    sform: tuple[np.ndarray, int] | None = (oblique(), 1),
    qform: tuple[np.ndarray, int] | None = (oblique(), 1),
    scaling: tuple[float, float] = (1, 0),
    kind: type = nib.Nifti1Image,
    big: bool = False,
    **fields: Any,
) -> Make:
    """A file of these voxels, with such a header."""

    def make(folder: Path) -> Path:
        header = kind.header_class(endianness="big" if big else "little")
        header.set_data_dtype(data.dtype.newbyteorder(">" if big else "<"))
        header.set_data_shape(data.shape)
        header["pixdim"][1:4] = [0.9, 0.8, 3.3]
        if qform:
            header.set_qform(*qform, strip_shears=True)
        if sform:
            header.set_sform(*sform)
        header["scl_slope"], header["scl_inter"] = scaling
        header["descrip"] = b"made for tests"
        more = fields.pop("extension", None)
        for field, value in fields.items():
            header[field] = value
        if more:
            header.extensions.append(nib.nifti1.Nifti1Extension("comment", more))
        header["vox_offset"] = header.sizeof_hdr + 4 + header.extensions.get_sizeondisk()
        path = folder / name
        with path.open("wb") as file:
            header.write_to(file)
            file.write(bytes(int(header["vox_offset"]) - file.tell()))
            file.write(data.astype(data.dtype.newbyteorder(">" if big else "<")).tobytes("F"))
        return path

    return make


def dicom(data: np.ndarray, affine: np.ndarray = oblique(), **tags: Any) -> Make:  # noqa: B008
    """The folder of a series, in names that are not in the order of its slices."""

    def make(folder: Path) -> Path:
        made = folder / "series"
        paths = series(made, data, affine, Modality="MR", **tags)
        for i, path in enumerate(paths):
            path.rename(made / f"{(3 * i + 1) % len(paths)}-{i}.dcm")
        return made

    return make


def implicit(make: Make) -> Make:
    """The same with implicit representations, and a sequence before the pixels."""

    def changed(folder: Path) -> Path:
        made = make(folder)
        for path in made.iterdir():
            header = pydicom.dcmread(path)
            item = pydicom.Dataset()
            item.Rows = 999  # not that of the image
            item.is_undefined_length_sequence_item = True
            header.ReferencedImageSequence = pydicom.Sequence([item])
            header["ReferencedImageSequence"].is_undefined_length = True
            header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            header.save_as(path, implicit_vr=True, little_endian=True)
        return made

    return changed


def edited(make: Make, edit: Callable[[Path], None]) -> Make:
    """The same, then changed."""

    def made(folder: Path) -> Path:
        path = make(folder)
        edit(path)
        return path

    return made


def spiked() -> np.ndarray:
    data = voxels("f4", (8, 9, 6))
    data[3, 4, 2], data[0, 0, 5] = 9e5, -7e5
    return data


APART = shifted(oblique(), (0.03, 0.02, 0))
SHEARED = oblique() @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
CORONAL = oblique((0.9, 3.1, 0.8), left_handed=True)
SCANS: dict[str, Make] = {
    "int16, scaled, with an extension": nifti(
        voxels("i2"),
        sform=(oblique(), 2),
        scaling=(0.5, 0),
        extension=b"keep me",
        slice_end=4,
        slice_duration=0.1,
    ),
    "uint8, big-endian, slices along x": nifti(
        voxels("u1"),
        big=True,
        sform=(oblique((4.0, 0.8, 0.9)), 1),
        qform=(oblique((4.0, 0.8, 0.9)), 1),
        slice_end=4,
    ),
    "uint16, big-endian, slices named": nifti(
        voxels("u2", high=60000),
        big=True,
        sform=None,
        qform=(oblique((1, 1, 1)), 1),
        dim_info=2 << 4,
        slice_end=5,
    ),
    "int32, whose slices are the last of two coarse axes": nifti(
        voxels("i4", low=3, high=9000), sform=(oblique((0.9, 3.3, 3.3)), 1), qform=None, scaling=(0.25, -10)
    ),
    "float64, big-endian, with an offset": nifti(
        voxels("f8", low=900, high=1000), big=True, scaling=(1.7, 300)
    ),
    "float32, big-endian, below 0 too": nifti(voxels("f4", low=-500, high=700), big=True),
    "int8, left-handed, only a qform": nifti(
        voxels("i1", low=-20, high=90), sform=None, qform=(oblique(left_handed=True), 3)
    ),
    "uint32, only a sform with shears": nifti(voxels("u4", high=70000), sform=(SHEARED, 3), qform=None),
    "neither transform": nifti(voxels("i2"), sform=None, qform=None),
    "two spaces": nifti(voxels("i2"), sform=(shifted(oblique(), (40, 3, 2)), 4)),
    "two transforms that are apart by less than a voxel": nifti(voxels("i2"), qform=(APART, 1)),
    "metres": nifti(voxels("i2"), sform=(np.diag([1e-3, 1e-3, 4e-3, 1]), 1), qform=None, xyzt_units=1),
    "spikes": nifti(spiked()),
    "one slice": nifti(voxels("i2", (1, 8, 6)), slice_end=0),
    "one value": nifti(np.full((5, 6, 4), 7, "i2")),
    "DICOM, explicit, rescaled": dicom(voxels("i2"), RescaleSlope="0.25", RescaleIntercept="-3"),
    "DICOM, implicit, unsigned, coronal": implicit(
        dicom(voxels("u2", high=60000).view("i2"), CORONAL, PixelRepresentation=0, MRAcquisitionType="2D")
    ),
    "DICOM, isotropic, acquired as slices": dicom(voxels("i2"), oblique((1, 1, 1)), MRAcquisitionType="2D"),
    "DICOM, one slice": dicom(voxels("i2", (7, 6, 1))),
}


def without(number: int) -> Callable[[Path], None]:
    return lambda folder: sorted(folder.iterdir())[number].unlink()


def first(**tags: Any) -> Callable[[Path], None]:
    """Other values in one file of a series."""
    return lambda folder: change(min(folder.iterdir()), **tags)


def moved(number: int, to: int, by: float = 0.0) -> Callable[[Path], None]:
    """One slice of a series where another lies, or off it by so many mm."""

    def edit(folder: Path) -> None:
        paths = sorted(folder.iterdir(), key=lambda path: path.stem.split("-")[1])
        place = np.array(pydicom.dcmread(paths[to]).ImagePositionPatient, float)
        change(paths[number], ImagePositionPatient=[f"{v:.9g}" for v in place + by])

    return edit


def damaged() -> np.ndarray:
    data = voxels("f4")
    data[2, 3, 1], data[0, 0, 0] = np.nan, 1e31
    return data


REFUSED: dict[str, tuple[str, Make]] = {
    "2 voxels are NaN, infinite or beyond 1e30": ("NaN", nifti(damaged())),
    "one intensity per voxel, got vectors": ("vectors", nifti(voxels("f4"), intent_code=1007)),
    "looks like labels .*its intent is label": ("intent", nifti(voxels("i2"), intent_code=1002)),
    "looks like labels .*4 different values": ("labels", nifti(voxels("i2", high=4))),
    "looks like labels .*its name ends in mask": ("mask", nifti(voxels("i2"), "sub-1_mask.nii")),
    "a result of seran's": ("result", nifti(voxels("i2"), "sub-1_desc-seran_T1w.nii")),
    "its name says part-phase": ("phase", nifti(voxels("i2"), "sub-1_part-phase_T1w.nii")),
    "promises 420 bytes of voxels, but it has 418; it is damaged or cut off": (
        "cut off",
        edited(nifti(voxels("i2")), lambda path: path.write_bytes(path.read_bytes()[:-2])),
    ),
    r"place the scan up to [\d.]+ mm apart": (
        "apart",
        nifti(voxels("i2"), qform=(shifted(oblique(), (1, 0, 0)), 1)),
    ),
    "must be at least 4x4": ("small", nifti(voxels("i2", (7, 3, 5)))),
    "float32 tells apart": ("offset", nifti(voxels("f8") / 1e3, scaling=(1, 1e6))),
    "an invertible affine": ("affine", nifti(voxels("i2"), sform=(np.ones((4, 4)), 1), qform=None)),
    "expected voxels of 0.0001 to 10000 mm, got 1 x 1 x 0": (
        "no size",
        nifti(voxels("i2"), sform=(np.diag([1.0, 1, 0, 1]), 1), qform=None),
    ),
    "expected voxels of 0.0001 to 10000 mm, got 20000 x 1 x 1": (
        "too coarse",
        nifti(voxels("i2"), sform=(np.diag([2e4, 1, 1, 1]), 1), qform=None),
    ),
    "expected voxels above 0 mm, got 0 x ": (
        "no pixdim",
        nifti(voxels("i2"), sform=None, pixdim=[1, 0, 0.8, 3.3, 0, 0, 0, 0]),
    ),
    "expected PixelSpacing of 0.0001 to 10000 mm, got ": (
        "pixels",
        edited(dicom(voxels("i2")), first(PixelSpacing=["1e300", "1e300"])),
    ),
    "cannot be read as NIfTI": (
        "garbage",
        edited(nifti(voxels("i2")), lambda path: path.write_bytes(b"x" * 400)),
    ),
    "slices are missing": ("gap", edited(dicom(voxels("i2", (7, 6, 7))), without(3))),
    "expected one series, got 2": ("series", edited(dicom(voxels("i2")), first(SeriesInstanceUID="1.2.9"))),
    "lies where": ("twice", edited(dicom(voxels("i2")), moved(1, 0))),
    "on a regular grid": ("irregular", edited(dicom(voxels("i2")), moved(2, 2, 0.7))),
    "shape, orientation and pixel spacing": (
        "mixed",
        edited(dicom(voxels("i2")), first(PixelSpacing=[2, 2])),
    ),
    r"expected a grey-scale image": (
        "colours",
        edited(dicom(voxels("i2")), first(PhotometricInterpretation="RGB")),
    ),
    "got a mosaic of many": ("mosaic", dicom(voxels("i2"), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
    "its DICOM header says P": ("phase series", dicom(voxels("i2"), ImageType=["ORIGINAL", "PRIMARY", "P"])),
}
"""What is refused by both: a pattern of what the page says."""


def second_type(path: Path) -> None:
    for file in path.iterdir():
        header = pydicom.dcmread(file)
        header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        header.PixelData = pydicom.encaps.encapsulate([bytes(40)])
        header["PixelData"].is_undefined_length = True
        header.save_as(file)


ONLY_HERE: dict[str, tuple[str, Make]] = {
    r"a series of 3 volumes \(4-D\)": ("4-D", nifti(voxels("i2", (7, 6, 5, 3)))),
    "it is NIfTI-2": ("second", nifti(voxels("i2"), kind=nib.Nifti2Image)),
    r"expected plain little-endian DICOM, got the transfer syntax 1\.2\.840.*; use the command": (
        "packed",
        edited(dicom(voxels("i2")), second_type),
    ),
    r"several echoes or moments \(4-D\); use the command": (
        "echoes",
        edited(dicom(voxels("i2")), first(EchoTime=90)),
    ),
    "its voxels are of type 1024": ("int64", nifti(voxels("i8"))),
    "of many frames; use the command": ("frames", dicom(voxels("i2"), NumberOfFrames=2)),
}
"""What the page refuses, and the command may take."""


def given(path: Path) -> dict[str, Any]:
    """A file, or the files of a folder, as a user gives them to the page."""
    found = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files.inside(path)]
    return {"folder": path.name if path.is_dir() else "", "files": found}


def expected(path: Path) -> dict[str, Any]:
    """What the package makes of a scan."""
    source = io.resolve(path)
    volume = io.read(path)
    if path.stem != "one value":
        labels.refuse_other_kinds(path, volume)
    axis = grid.slice_axis(volume.affine, volume.data.shape, named=volume.slices)
    refuse_small("the scan", np.moveaxis(volume.data, axis, 0), axis)
    stack, spikes = kspace.despiked(np.moveaxis(volume.data, axis, 0))
    volume = volume.on(np.moveaxis(stack, 0, axis), volume.affine)
    norm = Normalisation.of(stack)
    method = Method("phases", (2, 2), phases, "bd", "corner")
    made, _ = upscale(volume, method, grid.Plan(volume.grid, axis, (2, 2), "corner"))
    out = path.parent / "out.nii"
    io.write(made, out)
    data = out.read_bytes()
    start = len(data) - 4 * made.data.size
    return {
        "axis": axis, "offset": norm.offset, "gain": norm.gain, "spikes": spikes,
        "digest": files.sha256_of(source.files), "affine": made.affine.tolist(),
        "header": base64.b64encode(data[:start]).decode(), "voxels": base64.b64encode(data[start:]).decode(),
    }  # fmt: skip


def golden() -> dict[str, Any]:
    """All of it."""
    scans, refused = [], []
    with tempfile.TemporaryDirectory() as made:
        for i, (name, make) in enumerate(SCANS.items()):
            folder = Path(made, str(i))
            folder.mkdir()
            path = make(folder)
            scans.append({"name": name, **given(path), "expected": expected(path)})
        for both, cases in ((True, REFUSED), (False, ONLY_HERE)):
            for pattern, (name, make) in cases.items():
                folder = Path(made, name)
                folder.mkdir()
                path = make(folder)
                refused.append({"name": name, **given(path), "pattern": pattern})
                try:
                    expected(path)
                except BadInput:
                    continue
                assert not both, f"{name}: not refused by the package"
    return {"scans": scans, "refused": refused}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=0) + "\n")
