"""What a scan's header says in words, for people; no field that is there to name a patient or a place."""

from typing import Any

import nibabel as nib

from seran.io.dicom import elements
from seran.io.voxels import printable

LONGEST = 200  # characters of a text that are kept
CODES = {0: "unknown", 1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI"}
TAGS = (  # elements of DICOM that describe the measurement
    "Modality", "SeriesDescription", "ProtocolName", "Manufacturer", "ManufacturerModelName",
    "MagneticFieldStrength", "MRAcquisitionType", "ScanningSequence", "SequenceVariant", "RepetitionTime",
    "EchoTime", "InversionTime", "FlipAngle", "SliceThickness", "BodyPartExamined",
)  # fmt: skip


def said(header: Any) -> dict[str, str]:  # noqa: ANN401
    """What the header of a `seran.volume.Volume` says, by name; whoever shows these texts escapes them."""
    found: dict[str, Any] = {}  # nothing of NRRD and MetaImage: free texts, which may name anyone
    if isinstance(header, nib.Nifti1Header):
        found = {"description": header["descrip"].item(), "intent": header["intent_name"].item()}
        found["stored as"] = header.get_data_dtype()
        for form in ("sform", "qform"):
            code = abs(int(header[f"{form}_code"]))
            found[form] = f"{code} ({CODES.get(code, 'other')})"
    elif isinstance(header, nib.freesurfer.mghformat.MGHHeader):
        found = {name: header[name].item() for name in ("tr", "te", "ti", "flip_angle") if header[name]}
    elif hasattr(header, "paths"):  # a DICOM series
        first = elements.header(header.paths[0], TAGS)
        found = {name: "\\".join(elements.texts(first, name)) for name in TAGS}
    texts = {}
    for name, value in found.items():
        text = value.split(b"\0")[0].decode("latin-1") if isinstance(value, bytes) else printable(value)
        texts[name] = " ".join(text.split())[:LONGEST]
    return {name: text for name, text in texts.items() if text}
