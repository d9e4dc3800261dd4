"""A derived MR image in the study of the slices that it was made from (DICOM PS3.3, MR Image IOD).

What is copied is what still holds: patient, study, equipment, acquisition. What the finer grid changes is
written anew, and how it came about is said (C.7.6.1.1.3): new UIDs, type DERIVED and SECONDARY, spacing,
position, derivation, sources. Private elements are left out, because nobody knows which of them still hold.
"""

import copy
import datetime
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import validate_value

import seran
from seran import grid
from seran.errors import BadInput
from seran.io.dicom.listing import header
from seran.io.voxels import Receiver

NEEDED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "Manufacturer", "PositionReferenceIndicator", "PatientPosition",
    "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime",
)  # fmt: skip
"""Attributes that must be there, if only empty (type 2)."""
KEPT = (
    *NEEDED, "SpecificCharacterSet", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDescription",
    "PatientAge", "PatientSize", "PatientWeight", "InstitutionName", "StationName", "ManufacturerModelName",
    "BodyPartExamined", "DeviceSerialNumber", "SoftwareVersions", "ProtocolName", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionNumber", "ScanningSequence", "SequenceVariant", "SequenceName",
    "InversionTime", "EchoNumbers", "MagneticFieldStrength", "NumberOfAverages", "ImagingFrequency",
    "ImagedNucleus", "PixelBandwidth", "FlipAngle", "ContrastBolusAgent", "PatientIdentityRemoved",
    "DeidentificationMethod", "TemporalPositionIdentifier", "NumberOfTemporalPositions",
)  # fmt: skip
"""Attributes that hold for the finer image as they did for its source."""
TEXT = "Super-resolution"
"""What a derived series is called."""
THIRD = ("M_FFE", "M_SE", "MPR", "OTHER")


@dataclass(frozen=True)
class Slices:
    """Where a volume's slices came from: their files, in the order of the third array axis.

    Attributes:
        paths: one for each slice.
        positions: of the slices' first voxels, in mm (LPS+).
        slope: intensity of one stored step.
        offset: intensity of the stored 0.
    """

    paths: tuple[Path, ...]
    positions: Float[ndarray, "n 3"]
    slope: float
    offset: float


@dataclass(frozen=True)
class Derivation:
    """What all images of a derived series share.

    Attributes:
        series: SeriesInstanceUID.
        text: what was done.
        time: when.
    """

    series: str
    text: str
    time: datetime.datetime


def _code(value: str, meaning: str) -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return [code]


def _copied(source: Dataset) -> Dataset:
    made = Dataset()
    for name in KEPT:
        if name in source and _valid(source[name]):
            made[name] = copy.deepcopy(source[name])
        elif name in NEEDED:
            setattr(made, name, None)
    for name, value in (("ScanningSequence", "RM"), ("SequenceVariant", "NONE")):  # research mode
        if name not in made or not made[name].value:
            setattr(made, name, value)
    if "BodyPartExamined" not in made:  # it might be one of a pair
        made.Laterality = None
    return made


def _valid(element: pydicom.DataElement) -> bool:
    """Whether a value from outside is one that its representation allows."""
    values = element.value if isinstance(element.value, pydicom.multival.MultiValue) else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value) if value is not None else "", pydicom.config.RAISE)
    except ValueError:
        return False
    return True


def image(
    source: Dataset,
    pixels: ndarray,
    affine: Float[ndarray, "4 4"],
    at: int,
    thickness: float | None,
    scaling: tuple[float, float],
    what: Derivation,
) -> Dataset:
    """One slice of the derived series.

    Args:
        source: the header of the nearest source slice.
        pixels: rows × columns of int16 or uint16.
        affine: of the volume, LPS+.
        at: which slice it is.
        thickness: of a slice, in mm; None where it is not known.
        scaling: slope and intercept.
        what: the series.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on the source's unusual values; unusable ones are left out
        made = _copied(source)
    size = grid.spacing(affine)
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, generate_uid(None)
    made.Modality, made.SeriesInstanceUID = "MR", what.series
    for end, name in enumerate(("StudyInstanceUID", "FrameOfReferenceUID"), 1):
        if name not in made:
            setattr(made, name, f"{what.series}.{end}")
    number = source.get("SeriesNumber")
    made.SeriesNumber = None if number in (None, "") else (abs(int(number)) * 100 + 1) % 10**9
    described = " ".join(filter(None, [str(source.get("SeriesDescription", "")).strip()[:30], what.text]))
    made.SeriesDescription = f"{described[:40]} (research use only)"[:64]
    third = [v for v in list(source.get("ImageType", []))[2:3] if v in THIRD]
    made.ImageType = ["DERIVED", "SECONDARY", *(third or ["OTHER"])]
    made.InstanceCreationDate = made.ContentDate = made.SeriesDate = f"{what.time:%Y%m%d}"
    made.InstanceCreationTime = made.ContentTime = made.SeriesTime = f"{what.time:%H%M%S}"
    made.Rows, made.Columns = pixels.shape
    made.PixelSpacing = [_decimal(size[1]), _decimal(size[0])]
    made.ImageOrientationPatient = [_decimal(v) for v in (affine[:3, :2] / size[:2]).T.ravel()]
    made.ImagePositionPatient = [_decimal(v) for v in (affine @ [0, 0, at, 1])[:3]]
    made.SliceThickness = None if thickness is None else _decimal(thickness)
    made.SpacingBetweenSlices = _decimal(size[2])
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    kind = "SS" if made.PixelRepresentation else "US"
    made.add_new("SmallestImagePixelValue", kind, int(pixels.min()))
    made.add_new("LargestImagePixelValue", kind, int(pixels.max()))
    if scaling != (1.0, 0.0):
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = *map(_decimal, scaling), "US"
    _window(made, source, pixels, scaling)
    made.DerivationDescription = f"{what.text}, seran {seran.__version__}. Research use only."
    made.DerivationCodeSequence = _code("113085", "Spatial resampling")
    if all(name in source and _valid(source[name]) for name in ("SOPClassUID", "SOPInstanceUID")):
        reference = Dataset()
        reference.ReferencedSOPClassUID = source.SOPClassUID
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        reference.PurposeOfReferenceCodeSequence = _code(
            "121322", "Source image for image processing operation"
        )
        made.SourceImageSequence = [reference]
    tool = Dataset()
    tool.Manufacturer = tool.ManufacturerModelName = "seran"
    tool.SoftwareVersions = seran.__version__
    tool.PurposeOfReferenceCodeSequence = _code("109103", "Modifying Equipment")
    made.ContributingEquipmentSequence = [tool]
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    made["PixelData"].VR = "OW"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _window(made: Dataset, source: Dataset, pixels: ndarray, scaling: tuple[float, float]) -> None:
    """The source's window if it has one of some width, or one that shows everything."""
    try:
        width, center = (float(np.atleast_1d(source.get(f"Window{name}"))[0]) for name in ("Width", "Center"))
    except (TypeError, ValueError):
        width = center = 0.0
    if not (math.isfinite(width) and math.isfinite(center) and width >= 1):
        low, high = (float(v) * scaling[0] + scaling[1] for v in (pixels.min(), pixels.max()))
        width, center = max(1.0, high - low), (low + high) / 2
    made.WindowCenter, made.WindowWidth = _decimal(center), _decimal(width)


def _decimal(value: float) -> str:
    """A decimal string (DS) of at most 16 characters."""
    return pydicom.valuerep.format_number_as_ds(float(value))


def stored(data: Float[ndarray, "x y z"], source: Slices) -> tuple[ndarray, tuple[float, float]]:
    """Intensities as 16-bit integers: in the steps of the source where they suffice, else in others.

    Returns:
        The integers, and slope and intercept.
    """
    slope, offset = source.slope, source.offset
    low, high = ((float(v) - offset) / slope for v in (data.min(), data.max()))
    if low < -32768 or high > 65535 or (low < 0 and high > 32767):
        slope, offset = (float(data.max()) - float(data.min())) / 65535, float(data.min())
        low = 0.0
    kind = np.int16 if low < 0 else np.uint16
    limits = np.iinfo(kind)
    return np.clip(np.rint((data - offset) / slope), limits.min, limits.max).astype(kind), (slope, offset)


def receive(folder: Path, count: int, dtype: np.dtype) -> Receiver:
    """Write a derived series into the study of its source, one file for each slice.

    Args:
        folder: the folder, which is made.
        count: how many volumes.
        dtype: float32, which stands for integers in the steps of the source.

    Raises:
        BadInput: if the volumes do not come from DICOM: then there is no study to file them in.
    """
    if dtype != np.float32:
        raise BadInput(f"{folder}: DICOM stores 16-bit integers and how to scale them; leave --dtype out")
    folder.mkdir()
    what = Derivation(generate_uid(None), TEXT, datetime.datetime.now())
    at = 0
    for _ in range(count):
        volume = yield
        source = volume.header
        if not isinstance(source, Slices):
            raise BadInput(
                f"{folder}: only what was read from DICOM can be written as DICOM; name a file.nii.gz instead"
            )
        pixels, scaling = stored(volume.data, source)
        lps = grid.lps(volume.affine) + 0.0  # a text has no negative zeros
        for z in range(volume.data.shape[2]):
            place = (lps @ [0, 0, z, 1])[:3]
            nearest = int(np.linalg.norm(source.positions - place, axis=1).argmin())
            known = header(source.paths[nearest])
            finer = source.positions.shape[0] / volume.data.shape[2]
            thickness = known.get("SliceThickness")
            thickness = None if thickness in (None, "") else float(thickness) * finer
            made = image(known, pixels[:, :, z].T.copy(), lps, z, thickness, scaling, what)
            at += 1
            made.InstanceNumber = at
            made.save_as(folder / f"{at:05d}.dcm", enforce_file_format=True)
