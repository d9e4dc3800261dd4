"""A derived MR image in the study of the slices that it was made from (DICOM PS3.3, MR Image IOD).

What still holds is copied: patient, study, equipment, acquisition. What the finer grid changes is new, with
how it came about (C.7.6.1.1.3). Private elements are left out, because nobody knows which of them still hold.
"""

import copy
import datetime
import math
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds, validate_value

import seran
from seran import grid, scratch
from seran.errors import BadInput
from seran.io.dicom.elements import FORM, header, numbers, texts
from seran.io.dicom.slices import Slices
from seran.io.voxels import Receiver, Writer, cast
from seran.volume import Volume

NEEDED = (  # attributes that must be there, if only empty (type 2)
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "Manufacturer", "PositionReferenceIndicator", "PatientPosition",
    "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime",
)  # fmt: skip
KEPT = (  # attributes that hold for the finer image as they did for its source
    *NEEDED, "SpecificCharacterSet", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDescription",
    "PatientAge", "PatientSize", "PatientWeight", "InstitutionName", "StationName", "ManufacturerModelName",
    "BodyPartExamined", "DeviceSerialNumber", "SoftwareVersions", "ProtocolName", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionNumber", "ScanningSequence", "SequenceVariant", "SequenceName",
    "InversionTime", "EchoNumbers", "MagneticFieldStrength", "NumberOfAverages", "ImagingFrequency",
    "ImagedNucleus", "PixelBandwidth", "FlipAngle", "ContrastBolusAgent", "PatientIdentityRemoved",
    "DeidentificationMethod", "TemporalPositionIdentifier", "NumberOfTemporalPositions",
)  # fmt: skip
CODES = {  # of elements that have no other values
    "PatientSex": {"M", "F", "O"}, "MRAcquisitionType": {"2D", "3D"}, "PatientIdentityRemoved": {"YES", "NO"},
    "ScanningSequence": {"SE", "IR", "GR", "EP", "RM"},
}  # fmt: skip
ENOUGH = 1000  # steps that intensities span at least, where they can: no rounding to them shows
WITHIN = 0.995  # part of the voxels of a map that its window shows as they differ
MANY = 128  # voxels along an axis that are enough to choose it
FUNCTIONS = ("LINEAR_EXACT", "SIGMOID")  # of windows whose width need not be 1
THIRD = ("M_FFE", "M_SE", "MPR", "OTHER")  # third values of an image's type that the finer image keeps


def receive(out: Writer) -> Receiver:
    """Write a derived series, one file for each slice, into the study of its source, which must be DICOM."""
    if out.dtype != np.float32:
        raise BadInput(f"{out.path}: DICOM stores 16-bit integers and how to scale them; leave --dtype out")
    out.path.mkdir()
    series, path, known = _series(), None, Dataset()
    for t in range(out.count):
        volume = yield
        source = volume.header
        if not isinstance(source, Slices):
            raise BadInput(
                f"{out.path}: only what was read from DICOM can be written as DICOM; "
                "name a file.nii.gz instead"
            )
        stored, scaling = _stored(volume.data, source)
        shown = _shown(volume.data) if out.nth else None
        lps = grid.lps(volume.affine) + 0.0  # a text has no negative zeros
        for z, pixels in enumerate(np.moveaxis(stored, 2, 0)):
            position = (lps @ [0, 0, z, 1])[:3]
            nearest = int(np.linalg.norm(source.positions - position, axis=1).argmin())
            known = known if path == source.paths[nearest] else header(source.paths[nearest])
            path = source.paths[nearest]
            made = _image(known, series, pixels.T, scaling, out.nth)
            window = shown or _window(known, pixels, scaling)
            made.WindowCenter, made.WindowWidth = _decimals(window[:2])
            if window.function:
                made.VOILUTFunction = window.function
            made.SeriesDescription = _described(known, out.words)
            told = f"{out.words or 'as it was read'}, seran {seran.__version__}. Research use only."
            made.DerivationDescription = told
            made.ImagePositionPatient = _decimals(position)
            made.ImageOrientationPatient = _decimals((lps[:3, :2] / grid.spacing(lps)[:2]).T.ravel())
            columns, rows, made.SpacingBetweenSlices = _decimals(grid.spacing(lps))
            made.PixelSpacing = [rows, columns]
            thickness = volume.thickness
            if thickness is None and (own := _number(known, "SliceThickness")) is not None:
                thickness = own * len(source.positions) / stored.shape[2]
            made.SliceThickness = None if thickness is None else _decimals([thickness])[0]
            made.InstanceNumber = number = t * stored.shape[2] + z + 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # remarks on texts that the source's characters do not cover
                made.save_as(out.path / f"{number:05d}.dcm", enforce_file_format=True)


def _stored(data: Float[ndarray, "x y z"], source: Slices) -> tuple[ndarray, tuple[float, float]]:
    """Intensities as 16-bit integers, with slope and intercept, in the source's steps where they suffice.

    A result has values between those of its source: coarse steps are halved until the intensities span
    `ENOUGH` of them, or they are as fine as float32's.
    """
    low, high = scratch.limits(data)
    finest = float(np.spacing(np.float32(max(-low, high))))
    slope, offset = source.slope, source.offset
    while 0 < high - low < ENOUGH * slope and slope > 2 * finest:
        slope /= 2
    first, last = (low - offset) / slope, (high - offset) / slope
    if first < -32768 or last > (32767 if first < 0 else 65535):
        slope, offset, first = max((high - low) / 65535, finest), low, 0.0
    return cast((data - offset) / slope, np.dtype(np.int16 if first < 0 else np.uint16)), (slope, offset)


def as_written(volume: Volume) -> Volume:
    """A volume of a derived series as it is read again: intensities in the steps that are stored."""
    if not isinstance(volume.header, Slices):
        return volume  # which is refused when it is written
    stored, scaling = _stored(volume.data, volume.header)
    slope, offset = map(float, _decimals(scaling))
    return volume.on((stored * slope + offset).astype(np.float32), volume.affine)


def _series() -> Dataset:
    """What all images of a derived series share."""
    now = datetime.datetime.now()
    made = _dataset(SOPClassUID=MRImageStorage, Modality="MR", SeriesInstanceUID=generate_uid(None))
    made.InstanceCreationDate = made.ContentDate = made.SeriesDate = f"{now:%Y%m%d}"
    made.InstanceCreationTime = made.ContentTime = made.SeriesTime = f"{now:%H%M%S}"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.DerivationCodeSequence = _code("113085", "Spatial resampling")
    tool = _dataset(Manufacturer="seran", ManufacturerModelName="seran", SoftwareVersions=seran.__version__)
    tool.PurposeOfReferenceCodeSequence = _code("109103", "Modifying Equipment")
    made.ContributingEquipmentSequence = [tool]
    return made


def _image(
    source: Dataset, series: Dataset, pixels: ndarray, scaling: tuple[float, float], nth: int
) -> Dataset:
    """One slice of the derived series but for its place, by the header of the nearest source slice.

    Args:
        source: that header.
        series: what all slices share.
        pixels: as stored, rows and columns.
        scaling: slope and intercept.
        nth: which map beside the image it is; 0: the image itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on the source's unusual values; unusable ones are left out
        made = _dataset(**dict.fromkeys(NEEDED))
        characters = texts(source, "SpecificCharacterSet")
        if not characters or not set(characters) <= set(python_encoding):
            source.pop("SpecificCharacterSet", None)
            source.SpecificCharacterSet = "ISO_IR 192"  # which has whatever its texts were read as
        for name in KEPT:
            if _valid(source, name):
                made[name] = copy.deepcopy(source[name])
        for name, value in (("ScanningSequence", "RM"), ("SequenceVariant", "NONE")):  # research mode
            if name not in made:
                setattr(made, name, value)
    if "BodyPartExamined" not in made:  # it might be one of a pair
        made.Laterality = None
    made.update(series)
    made.SOPInstanceUID = generate_uid(None)
    for end, name in enumerate(("StudyInstanceUID", "FrameOfReferenceUID"), 1):
        if name not in made:
            setattr(made, name, f"{series.SeriesInstanceUID}.{end}")
    number = _number(source, "SeriesNumber")
    made.SeriesNumber = None if number is None else (abs(int(number)) * 100 + 1 + nth) % 10**9
    third = [v for v in texts(source, "ImageType")[2:3] if v in THIRD and not nth]
    made.ImageType = ["DERIVED", "SECONDARY", *(third or ["OTHER"])]
    made.Rows, made.Columns = pixels.shape
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in (("Smallest", pixels.min()), ("Largest", pixels.max())):
        made.add_new(f"{name}ImagePixelValue", "SS" if made.PixelRepresentation else "US", int(value))
    if scaling != (1.0, 0.0):
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = *_decimals(scaling), "US"
    if all(texts(source, name) and _valid(source, name) for name in ("SOPClassUID", "SOPInstanceUID")):
        purpose = _code("121322", "Source image for image processing operation")
        reference = _dataset(PurposeOfReferenceCodeSequence=purpose)
        reference.ReferencedSOPClassUID = source.SOPClassUID
        reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
        made.SourceImageSequence = [reference]
    made.add_new("PixelData", "OW", pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _described(source: Dataset, words: str) -> str:
    """What a derived series is called, in at most 64 characters."""
    described = f"{' '.join(texts(source, 'SeriesDescription'))[:30]} {words}".strip()
    return f"{described[:40]} (research use only)".lstrip()


def _valid(source: Dataset, name: str) -> bool:
    """Whether an element from outside has values, and such that the standard allows."""
    values, kind = texts(source, name), dictionary_VR(name)
    if not values or (len(values) > 1 and dictionary_VM(name) == "1"):
        return False
    with suppress(*FORM[1]):
        stored = source[name].value
        for value in stored if len(values) > 1 else [stored]:
            validate_value(kind, str(value), pydicom.config.RAISE)
            if not str(value).isprintable():
                return False
        return kind == source[name].VR and set(values) <= CODES.get(name, set(values))
    return False


def _number(source: Dataset, name: str) -> float | None:
    """The number of an element from outside, if it has one."""
    with suppress(BadInput):
        return float(numbers(Path(), [source], name)[0])
    return None


class _Window(NamedTuple):
    """What of the intensities is shown, in their units; without a function by LINEAR (PS3.3, C.11.2.1.2)."""

    center: float
    width: float
    function: str = ""

    @classmethod
    def of(cls, low: float, high: float) -> "_Window":
        """From black to white; LINEAR would take a unit away, which may be more than there is."""
        return cls((low + high) / 2, high - low if high > low else 1.0, "LINEAR_EXACT")


def _window(source: Dataset, pixels: ndarray, scaling: tuple[float, float]) -> _Window:
    """The source's window, if the standard allows it, or one that shows all."""
    function = " ".join(texts(source, "VOILUTFunction"))
    try:
        center, width = (float(texts(source, f"Window{name}")[0]) for name in ("Center", "Width"))
    except (IndexError, ValueError):
        center = width = 0.0
    able = width > 0 if function in FUNCTIONS else function in ("", "LINEAR") and width >= 1
    if able and math.isfinite(width) and math.isfinite(center):
        return _Window(center, width, function)
    low, high = (float(v) * scaling[0] + scaling[1] for v in (pixels.min(), pixels.max()))
    return _Window.of(low, high)


def _shown(data: Float[ndarray, "x y z"]) -> _Window:
    """The window of a map: from 0, or as far below it as above, to its largest values."""
    some = data[tuple(slice(None, None, max(1, n // MANY)) for n in data.shape)]
    most = float(np.quantile(np.abs(some), WITHIN))
    return _Window.of(-most if scratch.limits(data)[0] < 0 else 0.0, most)


def _dataset(**values: Any) -> Dataset:  # noqa: ANN401
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _code(value: str, meaning: str) -> list[Dataset]:
    return [_dataset(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)]


def _decimals(values: Iterable[float]) -> list[str]:
    """Decimal strings (DS) of at most 16 characters."""
    return [format_number_as_ds(float(value)) for value in values]
