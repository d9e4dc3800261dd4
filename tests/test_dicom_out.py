"""Derived DICOM series, judged by others: dicom3tools' validator, SimpleITK, pydicom."""

import copy
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel import orientations
from pydicom.pixels import apply_rescale, apply_windowing

from seran import cli, grid, io
from seran.classical import bicubic
from tests.conftest import enlarged, oblique, phantom
from tests.test_dicom import change, enhanced, series
from tests.test_formats import blob, centroid
from tests.test_uncertainty import noisy

DATA = phantom((26, 34, 7)).astype(np.int16)
STUDY = {
    "StudyInstanceUID": "1.2.826.0.7", "FrameOfReferenceUID": "1.2.826.0.8", "Modality": "MR",
    "SeriesNumber": 4, "SeriesDescription": "t2 tse",
    "PatientName": "Doe^Jane", "PatientID": "77", "StudyID": "5",
}  # fmt: skip


def upscale(source: Path, out: Path, *more: str) -> None:
    assert cli.run(["upscale", str(source), str(out), "--method", "bicubic", *more]) == 0


def by_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels x, y, z and affine (RAS+)."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1.0, -1, 1, 1]) @ affine


@pytest.mark.parametrize(
    "tags", [{}, {"RescaleSlope": "0.25", "RescaleIntercept": "-3"}], ids=["plain", "rescaled"]
)
@pytest.mark.parametrize("plane", ["auto", "sagittal"])
def test_simpleitk_reads_the_same_values_in_the_same_places(
    tmp_path: Path, tags: dict[str, str], plane: str
) -> None:
    """As the NIfTI file of the same scan, to half a stored step."""
    series(tmp_path / "in", DATA, oblique(), **STUDY, **tags)
    upscale(tmp_path / "in", tmp_path / "out", "--plane", plane)
    upscale(tmp_path / "in", tmp_path / "out.nii.gz", "--plane", plane, "--force")
    expected = io.read(tmp_path / "out.nii.gz")
    values, affine = by_itk(tmp_path / "out")
    np.testing.assert_allclose(affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(values, expected.data, atol=0.5 * float(tags.get("RescaleSlope", 1)) + 1e-3)
    again = io.read(tmp_path / "out")
    np.testing.assert_allclose(again.affine, expected.affine, atol=1e-4)
    np.testing.assert_allclose(again.data, values, atol=1e-4)


def test_it_is_filed_in_the_same_study_as_a_series_of_its_own(tmp_path: Path) -> None:
    paths = series(tmp_path / "in", DATA, oblique(), **STUDY)
    sources = {h.SOPInstanceUID for h in map(pydicom.dcmread, paths)}
    upscale(tmp_path / "in", tmp_path / "out")
    made = [pydicom.dcmread(p) for p in sorted((tmp_path / "out").iterdir())]
    assert len(made) == 7
    assert len({h.SOPInstanceUID for h in made} | sources) == 14
    assert {h.SOPInstanceUID for h in made} == {h.file_meta.MediaStorageSOPInstanceUID for h in made}
    for i, header in enumerate(made):
        for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "StudyID"):
            assert str(header[name].value) == STUDY[name]
        assert header.SeriesInstanceUID == made[0].SeriesInstanceUID != "1.2.826.0.1"
        assert (header.SeriesNumber, header.InstanceNumber) == (401, i + 1)
        assert list(header.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert header.SeriesDescription == "t2 tse bicubic (research use only)"  # of no network
        assert header.DerivationDescription.startswith("bicubic, seran ")
        assert header.DerivationCodeSequence[0].CodeValue == "113085"
        assert header.SourceImageSequence[0].ReferencedSOPInstanceUID in sources
        assert (header.Rows, header.Columns) == (68, 52)
        assert header.SliceThickness == pytest.approx(3.3)
    first = pydicom.dcmread(paths[0])
    moved = np.array(made[0].ImagePositionPatient, float) - np.array(first.ImagePositionPatient, float)
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    np.testing.assert_allclose(moved, -0.25 * (0.9 * row + 0.8 * column), atol=1e-5)


@pytest.mark.parametrize(
    "more", [[], pytest.param(["--isotropic"], marks=pytest.mark.slow)], ids=["in the plane", "thin slices"]
)
def test_maps_are_series_of_their_own(tmp_path: Path, more: list[str]) -> None:
    """Their numbers follow the image's, their slices are as thick, and their window is of their values."""
    affine = oblique() @ np.diag([1, 1, 1.2, 1])
    data = np.rint(noisy((40, 52, 6)))
    series(tmp_path / "in", data.astype(np.int16), affine, **STUDY, WindowCenter=844, WindowWidth=1559)
    words = ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--uncertainty", "--maps", *more]
    assert cli.run([*words, "--strict", "off"]) == 0
    made = {}
    for name, number in (("out", 401), ("out_uncertainty", 402), ("out_estimated", 403)):
        made[name] = [pydicom.dcmread(path) for path in sorted((tmp_path / name).iterdir())]
        assert {one.SeriesNumber for one in made[name]} == {number}
    thick = {one.SliceThickness for slices in made.values() for one in slices}
    assert thick == {made["out"][0].SpacingBetweenSlices if more else made["out"][0].SliceThickness}
    windows = {name: {(one.WindowCenter, one.WindowWidth) for one in slices} for name, slices in made.items()}
    assert windows["out"] == {(844, 1559)}
    for name in ("out_uncertainty", "out_estimated"):
        values, ((center, width),) = io.read(tmp_path / name).data, windows[name]
        low, high = center - width / 2, center + width / 2
        assert ((values >= low) & (values <= high)).mean() > 0.98
        assert high < 1.01 * np.abs(values).max()
        assert float(center) == pytest.approx(0 if values.min() < 0 else width / 2, abs=1e-6)
        assert {one.ImageType[2] for one in made[name]} == {"OTHER"}


def greys(path: Path) -> np.ndarray:
    """A slice as a viewer that keeps to the standard shows it, in 256 greys, by pydicom."""
    made = pydicom.dcmread(path)
    shown = apply_windowing(apply_rescale(made.pixel_array, made), made)
    ends = [
        float(made.get("RescaleSlope", 1)) * v + float(made.get("RescaleIntercept", 0)) for v in (0, 65535)
    ]
    if made.PixelRepresentation:
        ends = [end - 32768 * float(made.get("RescaleSlope", 1)) for end in ends]
    return np.rint((shown - ends[0]) / (ends[1] - ends[0]) * 255)


@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize("low", [0, -1])
@pytest.mark.parametrize("most", [1e-6, 0.02, 0.9, 1.3, 40, 3000])
def test_a_window_shows_what_there_is(tmp_path: Path, nth: int, low: int, most: float) -> None:
    """However small values are; LINEAR, which is meant without a function, shows those below 1 alike."""
    scaling = {"RescaleSlope": f"{most / 1000:.9g}", "RescaleIntercept": "0"}
    series(tmp_path / "in", DATA, oblique(), **STUDY, **scaling)
    source = io.read(tmp_path / "in")
    ramp = np.broadcast_to(np.linspace(low, 1, 26)[:, None, None], source.data.shape) * most
    with io.writer(tmp_path / "out", 1, nth=nth) as writer:
        writer.add(source.on(ramp.astype(np.float32), source.affine))
    paths = sorted((tmp_path / "out").iterdir())
    seen, even = greys(paths[3]), np.linspace(0, 255, 26)
    np.testing.assert_allclose(seen, np.broadcast_to(even, seen.shape), atol=4)
    assert validated(paths[0]) == []


def test_a_map_of_nothing_has_a_window(tmp_path: Path) -> None:
    series(tmp_path / "in", DATA, oblique(), **STUDY)
    source = io.read(tmp_path / "in")
    with io.writer(tmp_path / "out", 1, nth=2) as writer:
        writer.add(source.on(0 * source.data, source.affine))
    path = min((tmp_path / "out").iterdir())
    assert pydicom.dcmread(path).WindowWidth == 1
    assert validated(path) == []


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        (("0.5", "0.4", "LINEAR_EXACT"), True), (("100", "0.4", "SIGMOID"), True), (("5", "9", None), True),
        (("5", "9", "LINEAR"), True), (("0.5", "0.4", None), False), (("5", "9", "CUBIC"), False),
        (("5", "0", "LINEAR_EXACT"), False),
    ],
)  # fmt: skip
def test_a_window_of_the_source_is_kept_with_its_function(
    tmp_path: Path, window: tuple[str, str, str | None], kept: bool
) -> None:
    names = ("WindowCenter", "WindowWidth", "VOILUTFunction")
    tags = {name: value for name, value in zip(names, window, strict=True) if value is not None}
    series(tmp_path / "in", DATA, oblique(), **STUDY, **tags)
    io.write(io.read(tmp_path / "in"), tmp_path / "out")
    made = pydicom.dcmread(min((tmp_path / "out").iterdir()))
    stated = (made.WindowCenter, made.WindowWidth, made.get("VOILUTFunction"))
    given = (float(window[0]), float(window[1]), window[2])
    pixels = apply_rescale(made.pixel_array, made)
    whole = ((float(pixels.min()) + float(pixels.max())) / 2, float(np.ptp(pixels)), "LINEAR_EXACT")
    assert stated == (given if kept else whole)


def validated(path: Path) -> list[str]:
    """The errors that dicom3tools' validator finds, where it is."""
    if shutil.which("dciodvfy") is None:
        return []
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
    return [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
@pytest.mark.parametrize("name", ["papaya_PDw_fse", "dcm_qa_decubitus_HFS_T1w"])
def test_the_validator_finds_no_error_in_what_real_series_become(
    shared: Path, tmp_path: Path, name: str
) -> None:
    upscale(shared / "dicom" / name, tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == len(list((shared / "dicom" / name).iterdir()))
    for file in files:
        # papaya's study has identifiers with an illegal root; they are not ours to change
        assert [line for line in validated(file) if "Illegal root for UID = <0.0.0.0." not in line] == []


def test_values_beyond_what_the_source_stores_are_not_wrapped(tmp_path: Path) -> None:
    """Unsigned steps that end at 65535, and overshoot beyond them."""
    bright = np.zeros((26, 34, 7), np.int32)
    bright[8:18, 10:20] = 65535
    bright[:, :3] = np.arange(26 * 3 * 7).reshape(26, 3, 7)
    series(tmp_path / "in", bright, oblique(), **STUDY, PixelRepresentation=0)
    upscale(tmp_path / "in", tmp_path / "out", "--strict", "off")
    upscale(tmp_path / "in", tmp_path / "out.nii.gz", "--force", "--strict", "off")
    made, expected = io.read(tmp_path / "out").data, io.read(tmp_path / "out.nii.gz").data
    assert expected.max() > 66_000
    np.testing.assert_allclose(made, expected, atol=1.1)


def as_nifti(folder: Path, tmp_path: Path, steps: int) -> None:
    """What becomes of a series is what its NIfTI result holds, to half of so many steps over their range."""
    upscale(folder, tmp_path / "out", "--no-label-check")
    upscale(folder, tmp_path / "out.nii.gz", "--force", "--no-label-check")
    expected = io.read(tmp_path / "out.nii.gz").data
    made, _ = by_itk(tmp_path / "out")
    np.testing.assert_allclose(made, expected, atol=0.501 * np.ptp(expected) / steps)
    np.testing.assert_allclose(io.read(tmp_path / "out").data, made, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("which", "tags"),
    [
        (slice(None), {"RescaleSlope": "-1", "RescaleIntercept": "1000"}),
        (slice(1), {"RescaleSlope": "-1", "RescaleIntercept": "400"}),
        (slice(1), {"RescaleSlope": "40", "RescaleIntercept": "0"}),
        (slice(3, 4), {"RescaleSlope": "0.001", "RescaleIntercept": "0"}),
    ],
    ids=["negative", "negative in the first", "coarse in the first", "fine in one"],
)
def test_slices_that_are_scaled_each_in_its_way(tmp_path: Path, which: slice, tags: dict[str, str]) -> None:
    for path in series(tmp_path / "in", DATA, oblique(), **STUDY)[which]:
        change(path, **tags)
    as_nifti(tmp_path / "in", tmp_path, 1000)


@pytest.mark.parametrize("intercept", ["0", "-3", "1000000"])
@pytest.mark.parametrize("slope", ["1", "0.3"])
def test_few_values_are_interpolated_in_finer_steps(tmp_path: Path, slope: str, intercept: str) -> None:
    """Far from 0 in steps as fine as float32 has. What the source holds stays what it is."""
    few = np.minimum(DATA // 30, 20)
    scaling = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    series(tmp_path / "in", few, oblique(), **STUDY, **scaling)
    as_nifti(tmp_path / "in", tmp_path, 1000 if intercept != "1000000" else 90)
    source = io.read(tmp_path / "in")
    io.write(source, tmp_path / "again")
    np.testing.assert_allclose(io.read(tmp_path / "again").data, source.data, rtol=1e-7)


def test_a_source_without_a_study_gets_one(tmp_path: Path) -> None:
    """The same for all slices."""
    series(tmp_path / "in", DATA, oblique(), Modality="MR")
    upscale(tmp_path / "in", tmp_path / "out")
    made = [pydicom.dcmread(p) for p in (tmp_path / "out").iterdir()]
    assert len({(h.StudyInstanceUID, h.FrameOfReferenceUID, h.SeriesInstanceUID) for h in made}) == 1
    assert made[0].SeriesNumber is None


def test_missing_slices_are_named(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a real series."""
    shutil.copytree(shared / "dicom" / "dcm_qa_decubitus_HFS_T1w", tmp_path / "in")
    tmp_path.joinpath("in").chmod(0o755)
    sorted((tmp_path / "in").iterdir())[5].unlink()
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "slices are missing in series 3 (t1_fl2d_sag" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_series_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series(tmp_path / "in" / "a", DATA, oblique(), **STUDY)
    series(
        tmp_path / "in" / "b", DATA[:20], oblique(), **STUDY | {"SeriesNumber": 5}, SeriesInstanceUID="1.2.9"
    )
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "4 (t2 tse, 7 images), 5 (t2 tse, 7 images); choose one with --series" in capsys.readouterr().err
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--series", "9"]) == 2
    told = capsys.readouterr().err
    assert "in: no series 9; there are 4 (t2 tse, 7 images) and 5 (t2 tse, 7 images)\n" in told
    for pick in ("5", "1.2.9"):
        upscale(tmp_path / "in", tmp_path / f"{pick}.nii", "--series", pick)
        assert io.read(tmp_path / f"{pick}.nii").data.shape == (40, 68, 7)


def test_echoes_are_volumes(tmp_path: Path) -> None:
    series(tmp_path / "in" / "a", DATA, oblique(), **STUDY)
    series(tmp_path / "in" / "b", DATA + 9, oblique(), **STUDY, EchoNumbers=2, EchoTime=90)
    for path in (tmp_path / "in" / "b").iterdir():
        change(path, SOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID + ".2")
    upscale(tmp_path / "in", tmp_path / "out.nii")
    assert io.read_series(tmp_path / "out.nii").count == 2
    upscale(tmp_path / "in", tmp_path / "out", "--force")
    made = io.read_series(tmp_path / "out")
    assert made.count == 2
    first, second = made.volumes
    np.testing.assert_allclose(second.data[first.data > 0] - first.data[first.data > 0], 9, atol=1.1)


def test_only_dicom_becomes_dicom(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["upscale", str(scan), str(tmp_path / "out"), "--method", "bicubic"]) == 2
    assert "which only DICOM becomes" in capsys.readouterr().err
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_an_existing_folder_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series(tmp_path / "in", DATA, oblique(), **STUDY)
    (tmp_path / "out").mkdir()
    assert cli.run(["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--force"]) == 2
    assert "is not replaced" in capsys.readouterr().err


@pytest.mark.slow
def test_a_blob_keeps_its_millimetres_in_all_48_orientations(tmp_path: Path) -> None:
    """Read, upscale, write as DICOM; SimpleITK reads the result."""
    shape = (9, 11, 7)
    turns = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    for n, (order, signs) in enumerate(turns):
        turn = np.column_stack([order, signs])
        data = np.rint(orientations.apply_orientation(blob(shape), turn))
        affine = oblique() @ orientations.inv_ornt_aff(turn, shape)
        series(tmp_path / f"in{n}", data.astype(np.int16), affine, **STUDY)
        (source,) = io.read_series(tmp_path / f"in{n}").volumes
        np.testing.assert_allclose(centroid(source.data, source.affine), centroid(data, affine), atol=1e-4)
        result = enlarged(source, bicubic(2), 2, "corner")
        io.write(result, tmp_path / f"out{n}")
        made, where = by_itk(tmp_path / f"out{n}")
        np.testing.assert_allclose(where, result.affine, atol=1e-4)
        np.testing.assert_allclose(centroid(made, where), centroid(data, affine), atol=0.02)


@pytest.mark.parametrize("name", ["papaya_PDw_fse", "dcm_qa_decubitus_HFS_T1w"])
def test_simpleitk_reads_what_real_series_become(shared: Path, tmp_path: Path, name: str) -> None:
    """Values to half a stored step, places to 1e-4 mm, corners as they were.

    SimpleITK stacks slices along r x c, whatever their positions; those of one series are rounded.
    """
    source = next(io.read_series(shared / "dicom" / name).volumes)
    upscale(shared / "dicom" / name, tmp_path / "out")
    expected = enlarged(source, bicubic(2), 2, "corner")
    values, affine = by_itk(tmp_path / "out")
    np.testing.assert_allclose(affine[:, [0, 1, 3]], expected.affine[:, [0, 1, 3]], atol=1e-4)
    np.testing.assert_allclose(affine[:, 2], expected.affine[:, 2], atol=5e-3)
    np.testing.assert_allclose(values, expected.data, atol=0.5001)
    again = io.read(tmp_path / "out")
    apart = grid.corners(again.data.shape, again.affine) - grid.corners(source.data.shape, source.affine)
    assert np.abs(apart).max() < 1e-4


def without_errors(folder: Path) -> None:
    """By dicom3tools' validator."""
    for file in sorted(folder.iterdir()):
        assert validated(file) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
@pytest.mark.parametrize("more", [(), ("--scale", "2.6"), ("--plane", "sagittal")], ids=" ".join)
def test_the_validator_finds_no_error_in_made_series(tmp_path: Path, more: tuple[str, ...]) -> None:
    """Rescaled ones, ones that are negative, enhanced ones, moments, other grids."""
    series(tmp_path / "in" / "a", DATA - 50, oblique(), **STUDY, RescaleSlope="0.25", RescaleIntercept="-3")
    series(tmp_path / "moments" / "a", DATA, oblique(), **STUDY, TemporalPositionIdentifier=1)
    series(tmp_path / "moments" / "b", DATA + 9, oblique(), **STUDY, TemporalPositionIdentifier=2)
    enhanced(tmp_path / "enhanced", DATA, oblique(), **STUDY)
    shutil.rmtree(tmp_path / "enhanced" / "single")
    for name, count in (("in", 1), ("moments", 2), ("enhanced", 1)):
        out = tmp_path / f"out-{name}"
        upscale(tmp_path / name, out, *more)
        without_errors(out)
        assert io.read_series(out).count == count


def real(shared: Path, folder: Path) -> list[pydicom.Dataset]:
    """The slices of a real sagittal series, to be spoiled and saved in ``folder``."""
    folder.mkdir()
    return [pydicom.dcmread(p) for p in sorted((shared / "dicom/dcm_qa_decubitus_HFS_T1w").iterdir())]


def refused(folder: Path, slices: list[pydicom.Dataset], capsys: pytest.CaptureFixture[str]) -> str:
    for i, header in enumerate(slices):
        header.save_as(folder / f"{i:03}.dcm")
    out = folder.parent / "out"
    assert cli.run(["upscale", str(folder), str(out), "--method", "bicubic"]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_a_localizer_is_named(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every third slice of a real series sagittal, coronal, axial."""
    slices = real(shared, tmp_path / "in")
    for i, plane in ((1, [1, 0, 0, 0, 0, -1]), (2, [1, 0, 0, 0, 1, 0])):
        for header in slices[i::3]:
            header.ImageOrientationPatient = plane
    assert "a localizer shows several orientations" in refused(tmp_path / "in", slices, capsys)


def test_a_slice_that_comes_twice_is_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = real(shared, tmp_path / "in")
    again = copy.deepcopy(slices[7])
    again.SOPInstanceUID += ".1"
    said = refused(tmp_path / "in", [*slices, again], capsys)
    (one, other), folder = ("007.dcm", "035.dcm"), tmp_path / "in"
    assert (
        f"{one}: it lies where {folder / other}" in said or f"{other}: it lies where {folder / one}" in said
    )


@pytest.mark.parametrize(
    ("factor", "text"), [(1.3, "apart on a regular grid, but one"), (2.5, "or the gaps between them vary")]
)
def test_gaps_that_vary_are_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, text: str
) -> None:
    """The second half of a real series, moved along its normal."""
    slices = real(shared, tmp_path / "in")
    for header in slices[20:]:
        header.ImagePositionPatient[0] += 4.8 * (factor - 1)
    assert text in refused(tmp_path / "in", slices, capsys)


def test_a_mosaic_is_named(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slices = real(shared, tmp_path / "in")
    slices[0].ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    assert "got a mosaic of many" in refused(tmp_path / "in", slices[:1], capsys)


def test_colours_in_a_series_are_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = real(shared, tmp_path / "in")
    slices[3].SamplesPerPixel, slices[3].PhotometricInterpretation = 3, "RGB"
    assert "003.dcm: expected a grey-scale image (MONOCHROME2), got RGB" in refused(
        tmp_path / "in", slices, capsys
    )


@pytest.mark.parametrize("modality", ["CT", "SEG"])
def test_what_is_not_mr_is_named(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], modality: str
) -> None:
    slices = real(shared, tmp_path / "in")[:4]
    for header in slices:
        header.Modality = modality
    assert f"expected a folder with MR images in DICOM, found only {modality}" in refused(
        tmp_path / "in", slices, capsys
    )


def test_what_is_no_image_is_passed_over(shared: Path, tmp_path: Path) -> None:
    """A DICOMDIR, texts, an empty file, a report, links to nowhere and to itself; spaces, other scripts."""
    folder = tmp_path / "Studie 1 – 頭部"
    shutil.copytree(shared / "dicom" / "papaya_PDw_fse", folder / "sér ie")
    folder.joinpath("sér ie").chmod(0o755)
    (folder / "readme.txt").write_text("hello")
    (folder / "empty").touch()
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))
    (folder / "nowhere.dcm").symlink_to(tmp_path / "missing")
    (folder / "loop").symlink_to(folder)
    report = pydicom.dcmread(next((folder / "sér ie").iterdir()))
    report.Modality = "SR"
    report.save_as(folder / "report.dcm")
    upscale(folder, tmp_path / "sharp ü.nii.gz")
    assert io.read(tmp_path / "sharp ü.nii.gz").data.shape == (512, 512, 20)
