"""The DICOM reader on a real series and on made ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

import seran
from seran import cli, grid, io
from seran.errors import BadInput
from seran.io import dicom
from seran.io.dicom import folder as folders
from seran.io.dicom import slices
from seran.job import steps
from tests.conftest import oblique, phantom, shifted


def series(folder: Path, data: np.ndarray, affine: np.ndarray, **tags: Any) -> list[Path]:
    """Write a stack of int16 as DICOM, one file per slice; ``tags`` replace or, if None, remove."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    size = grid.spacing(affine)
    paths = []
    for z in range(data.shape[2]):
        header = pydicom.Dataset()
        header.SOPClassUID = MRImageStorage
        header.SOPInstanceUID = f"1.2.826.0.1.{z + 1}"
        header.SeriesInstanceUID = "1.2.826.0.1"
        header.EchoNumbers = 1
        header.EchoTime = 20
        header.SliceThickness = float(size[2])
        header.ImagePositionPatient = [f"{v:.9g}" for v in (lps @ [0, 0, z, 1])[:3]]
        header.ImageOrientationPatient = [f"{v:.9g}" for v in (lps[:3, :2] / size[:2]).T.ravel()]
        header.PixelSpacing = [f"{size[1]:.9g}", f"{size[0]:.9g}"]
        header.Rows, header.Columns = data.shape[1], data.shape[0]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.PixelData = data[:, :, z].T.astype("<i2").tobytes()
        for name, value in tags.items():
            if value is None:
                delattr(header, name)
            else:
                setattr(header, name, value)
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{z:04d}.dcm")
        header.save_as(paths[-1], enforce_file_format=True)
    return paths


def change(path: Path, **tags: Any) -> None:
    """Other values in a file that is there."""
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path)


DATA = phantom((26, 34, 7)).astype(np.int16)


def test_a_real_series_is_the_converted_file(shared: Path) -> None:
    folder = shared / "dicom" / "papaya_PDw_fse"
    (made,) = dicom.scans(sorted(folder.iterdir(), reverse=True))
    known = io.read(shared / "test" / "papaya_PDw.nii.gz")
    np.testing.assert_array_equal(made.data, known.data)
    np.testing.assert_allclose(made.affine, known.affine, atol=1e-4)


@pytest.mark.parametrize("left_handed", [False, True])
def test_every_voxel_keeps_its_place(tmp_path: Path, left_handed: bool) -> None:
    """Slices are stacked along r x c whatever the order of the files, so axes are right-handed."""
    affine = oblique(left_handed=left_handed)
    paths = series(tmp_path, DATA, affine)
    (made,) = dicom.scans([paths[i] for i in (3, 0, 6, 1, 5, 2, 4)])
    assert made.data.dtype == np.float32
    expected = DATA[:, :, ::-1] if left_handed else DATA
    np.testing.assert_array_equal(made.data, expected)
    mirrored = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 6], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(made.affine, mirrored if left_handed else affine, atol=1e-5)


def test_what_is_read_can_be_written(tmp_path: Path) -> None:
    (made,) = dicom.scans(series(tmp_path, DATA, oblique()))
    io.write(made, tmp_path / "scan.nii.gz")
    again = io.read(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(again.data, DATA)
    np.testing.assert_allclose(again.affine, oblique(), atol=1e-4)


def test_intensities_are_rescaled(tmp_path: Path) -> None:
    (made,) = dicom.scans(series(tmp_path, DATA, oblique(), RescaleSlope="0.25", RescaleIntercept="-3"))
    np.testing.assert_allclose(made.data, DATA * 0.25 - 3, rtol=1e-6)


def test_unsigned_voxels(tmp_path: Path) -> None:
    big = DATA.astype(np.int32) + 40_000
    (made,) = dicom.scans(series(tmp_path, big, oblique(), PixelRepresentation=0))
    np.testing.assert_array_equal(made.data, big)


def test_series_and_echoes_are_scans_of_their_own(tmp_path: Path) -> None:
    paths = [
        *series(tmp_path / "b2", DATA + 3, oblique(), SeriesInstanceUID="1.2.9"),
        *series(tmp_path / "a2", DATA + 2, oblique(), EchoNumbers=2, EchoTime=90),
        *series(tmp_path / "a1", DATA + 1, oblique()),
    ]
    made = dicom.scans(paths)
    assert [int((volume.data - DATA).max()) for volume in made] == [1, 2, 3]


def test_a_gap_ends_a_part(tmp_path: Path) -> None:
    paths = series(tmp_path, DATA, oblique())
    first, second = dicom.scans(paths[:3] + paths[4:])
    np.testing.assert_array_equal(first.data, DATA[:, :, :3])
    np.testing.assert_array_equal(second.data, DATA[:, :, 4:])
    np.testing.assert_allclose(first.affine, oblique(), atol=1e-5)
    np.testing.assert_allclose(second.affine, shifted(oblique(), (0, 0, 4)), atol=1e-5)


@pytest.mark.parametrize("paths", [[0], [0, 4, 5, 6]], ids=["alone", "behind a gap"])
def test_a_single_slice_has_a_thickness(tmp_path: Path, paths: list[int]) -> None:
    written = series(tmp_path, DATA, oblique())
    made = dicom.scans([written[i] for i in paths])[0]
    assert made.data.shape == (26, 34, 1)
    np.testing.assert_allclose(made.affine, oblique(), atol=1e-5)


PIXELS = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation",
)  # fmt: skip


def enhanced(folder: Path, data: np.ndarray, affine: np.ndarray, **tags: Any) -> Path:
    """The same stack as one enhanced image, its slices in another order."""
    slices = [pydicom.dcmread(p) for p in series(folder / "single", data, affine)]
    first, order = slices[0], np.random.default_rng(0).permutation(len(slices))
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = EnhancedMRImageStorage, "1.2.826.0.3"
    header.SeriesInstanceUID, header.Modality, header.NumberOfFrames = "1.2.826.0.1", "MR", len(slices)
    for name in PIXELS:
        setattr(header, name, first[name].value)

    def item(**values: Any) -> list[pydicom.Dataset]:
        made = pydicom.Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return [made]

    header.SharedFunctionalGroupsSequence = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=first.ImageOrientationPatient),
        PixelMeasuresSequence=item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness),
        PixelValueTransformationSequence=item(RescaleSlope="0.5", RescaleIntercept="-2", RescaleType="US"),
    )
    header.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=item(ImagePositionPatient=slices[i].ImagePositionPatient))[0]
        for i in order
    ]
    header.PixelData = b"".join(slices[i].PixelData for i in order)
    for name, value in tags.items():
        setattr(header, name, value)
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder / "enhanced.dcm"


def test_an_enhanced_image_is_its_slices(tmp_path: Path) -> None:
    (made,) = dicom.scans([enhanced(tmp_path, DATA, oblique())])
    np.testing.assert_array_equal(made.data, DATA * 0.5 - 2)
    np.testing.assert_allclose(made.affine, oblique(), atol=1e-5)


def test_frames_without_positions(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a position for each of its 7 frames, got 0"):
        dicom.scans([enhanced(tmp_path, DATA, oblique(), PerFrameFunctionalGroupsSequence=[])])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_slices(tmp_path: Path, syntax: str) -> None:
    """Packed by pydicom and the libraries that it uses."""
    large = phantom((70, 66, 3)).astype(np.int16)
    paths = series(tmp_path, large, oblique())
    for path in paths:
        header = pydicom.dcmread(path)
        header.compress(syntax)
        header.save_as(path)
    (made,) = dicom.scans(paths)
    np.testing.assert_array_equal(made.data, large)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def compress(path: Path) -> None:
    """Claim to be JPEG."""
    header = pydicom.dcmread(path)
    header.PixelData = pydicom.encaps.encapsulate([b"no jpeg"])
    header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.save_as(path)


def deflate(path: Path) -> None:
    """As small as a bomb would be: what it unpacks to is not limited by the size of the file."""
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.write_bytes(b"# Dataset\n" * 50), "cannot be read as DICOM"),
        (lambda path: path.write_bytes(b""), "cannot be read as DICOM"),
        (damage, "promises 1,768 bytes of pixels, but it has 1,668"),
        (compress, "JPEG Lossless.* needs a decoder|cannot be read as DICOM"),
                (lambda path: change(path, NumberOfFrames=3), "promises 5,304 bytes of pixels"),
        (lambda path: change(path, Rows=60_000, Columns=60_000), "promises 7,200,000,000 bytes"),
        (lambda path: change(path, SamplesPerPixel=3), "grey-scale"),
        (lambda path: change(path, PhotometricInterpretation="MONOCHROME1"), "grey-scale"),
        (lambda path: change(path, PixelSpacing=[0.7, 0.7]), "orientation and pixel spacing"),
        (lambda path: change(path, PixelSpacing=[0.7]), "2 finite numbers as PixelSpacing, got '0.7'"),
        (lambda path: change(path, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), "expected the shape, orient"),
        (lambda path: change(path, Rows=26, Columns=34), "expected the shape"),
        (lambda path: change(path, RescaleSlope="1e39"), "intensities up to"),
    ],
)  # fmt: skip
def test_what_cannot_be_stacked_is_named(tmp_path: Path, spoil: Callable[[Path], Any], text: str) -> None:
    paths = series(tmp_path, DATA, oblique())
    spoil(paths[4])
    with pytest.raises(BadInput, match=text):
        dicom.scans(paths)


def test_no_file_and_no_position(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got none"):
        dicom.scans([])
    with pytest.raises(BadInput, match="no-such"):
        dicom.scans([tmp_path / "no-such.dcm"])
    with pytest.raises(BadInput, match="expected 3 finite numbers as ImagePositionPatient, got none"):
        dicom.scans(series(tmp_path, DATA, oblique(), ImagePositionPatient=None))


def test_a_slice_twice(tmp_path: Path) -> None:
    paths = series(tmp_path, DATA, oblique())
    again = tmp_path / "again.dcm"
    again.write_bytes(paths[2].read_bytes())
    change(again, SOPInstanceUID="1.2.826.0.1.99")
    with pytest.raises(
        BadInput, match=r"again\.dcm: it lies where \S*0002\.dcm|0002\.dcm: it lies where \S*again"
    ):
        dicom.scans([*paths, again])


@pytest.mark.parametrize("axis", [0, 2], ids=["beside", "between"])
def test_slices_off_the_grid(tmp_path: Path, axis: int) -> None:
    """A step that is no multiple of the others, and a slice moved in its plane."""
    paths = series(tmp_path, DATA, oblique())
    lps = np.diag([-1.0, -1, 1, 1]) @ oblique()
    place = lps @ [*(0.3 * (np.arange(3) == axis) + [0, 0, 3]), 1]
    change(paths[3], ImagePositionPatient=[f"{v:.9g}" for v in place[:3]])
    with pytest.raises(BadInput, match="regular grid"):
        dicom.scans(paths)


def test_parallel_directions_are_no_plane(tmp_path: Path) -> None:
    paths = series(tmp_path, DATA, oblique(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    for some in (paths, paths[:1]):
        with pytest.raises(BadInput, match="two directions of length 1 at right angles"):
            dicom.scans(some)


def test_texts_of_a_file_are_harmless(tmp_path: Path) -> None:
    """What an error message repeats of a header has no control characters."""
    path = series(tmp_path, DATA, oblique())[0]
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME2 ", b"MONO\x1b[2J\nE2 "))
    with pytest.raises(BadInput) as caught:
        dicom.scans([path])
    assert str(caught.value).isprintable()


def test_a_mistake_of_ours_is_not_told_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*args: object) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(slices, "_Slice", mistake)
    with pytest.raises(TypeError, match="a mistake"):
        dicom.scans(series(tmp_path, DATA, oblique()))


@pytest.mark.parametrize(
    ("tags", "contrast"),
    [
        ({"SeriesDescription": "t1_fl2d_sag", "EchoTime": 2.46}, "T1"),
        ({"SeriesDescription": "FSE PD AXIAL OBL", "ProtocolName": "T1"}, "other"),
        ({"SeriesDescription": "sag", "ProtocolName": "t1_mprage_sag_p2_iso"}, "T1"),
        ({"SeriesDescription": "Ax T1 FLAIR"}, "other"),
        ({"SeriesDescription": "T1 Map"}, "other"),
        ({"SeriesDescription": "T1", "EchoTime": 90}, "other"),
        ({"SeriesDescription": "MDT1", "ProtocolName": "brain"}, ""),
        ({}, ""),
    ],
)
def test_the_contrast_is_a_word_of_a_list(tmp_path: Path, tags: dict[str, Any], contrast: str) -> None:
    """Nothing else of these texts goes further; slices that disagree are of no contrast that is known."""
    paths = series(tmp_path, DATA, oblique(), **tags)
    (made,) = dicom.scans(paths)
    assert made.contrast == contrast
    change(paths[3], SeriesDescription="T2", ProtocolName="T2")
    (made,) = dicom.scans(paths)
    assert made.contrast == "other"


def test_half_widths_are_those_of_the_header_contrast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the folder's name, which counts where the header says nothing."""
    seen = []
    monkeypatch.setattr(steps, "_widths", lambda of, engine, contrast: seen.append(contrast) or of.widths)
    for text, name in (("t1_se", "STUDY"), ("t2_tse", "a_T1w"), ("", "b_T1w"), ("", "STUDY2")):
        series(tmp_path / name, DATA, oblique(), SeriesDescription=text, Modality="MR")
        with pytest.raises(BadInput, match="half-widths are calibrated for"):
            seran.upscale(tmp_path / name, uncertainty=True)
    assert seen == ["T1", "other", "T1", "other"]


def test_a_run_looks_through_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "in", DATA, oblique(), Modality="MR")
    looked, right = [], folders.series_of

    def counted(folder: Path) -> list[dicom.Listed]:
        looked.append(folder)
        return right(folder)

    monkeypatch.setattr(folders, "series_of", counted)
    out = tmp_path / "out.nii"
    assert cli.run(["upscale", str(tmp_path / "in"), str(out), "--method", "bicubic"]) == 0
    assert looked == [tmp_path / "in"]
