"""DICOM files that are damaged, lost, or say what is not so: a line names them, nothing is silently wrong."""

import contextlib
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from seran import cli, grid, io
from seran.errors import BadInput
from seran.io import describe, dicom
from seran.io.dicom import pixels
from tests.conftest import oblique, phantom
from tests.test_dicom import DATA, change, enhanced, series
from tests.test_dicom_out import STUDY, without_errors

LARGE = phantom((70, 66, 3)).astype(np.int16)


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that `seran upscale` prints of a folder; nothing is written."""
    out = folder.parent / "out.nii"
    assert cli.run(["upscale", str(folder), str(out), "--method", "bicubic"]) == 2
    assert not out.exists()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", ["{:04}.dcm", "IM{:04}", "1.2.826.{}"])
@pytest.mark.parametrize("which", [0, 3, 6], ids=["first", "middle", "last"])
@pytest.mark.parametrize("kind", ["empty", "zeros", "cut", "link"])
def test_a_slice_that_is_lost_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, which: int, kind: str
) -> None:
    """At the ends of a stack as in its middle; what lies beside it and is no slice is passed over."""
    folder = tmp_path / "in"
    paths = [
        p.rename(folder / name.format(i)) for i, p in enumerate(series(folder, DATA, oblique(), **STUDY))
    ]
    (folder / "README").write_text("hello")
    (folder / "done").touch()
    (folder / "notes.txt").symlink_to(tmp_path / "nowhere")
    io.read(folder)
    content = paths[which].read_bytes()
    paths[which].unlink()
    if kind == "link":
        paths[which].symlink_to(tmp_path / "missing")
    else:
        paths[which].write_bytes({"empty": b"", "zeros": bytes(100), "cut": content[:300]}[kind])
    assert f"seran: {paths[which]}: " in (said := refused(folder, capsys))
    assert "it may be a slice of series 4 (t2 tse, 6 images)" in said
    assert cli.run(["info", str(folder)]) == 0
    assert f"not read: {paths[which]}: " in capsys.readouterr().out


@pytest.mark.slow
def test_wherever_a_header_is_cut_the_slice_is_named(tmp_path: Path) -> None:
    paths = series(tmp_path, DATA, oblique(), **STUDY)
    whole = paths[-1].read_bytes()
    for size in range(0, len(whole), 7):
        paths[-1].write_bytes(whole[:size])
        with pytest.raises(BadInput, match=f"^{paths[-1]}: "):
            dicom.read(dicom.picked(tmp_path, None))


def test_a_folder_of_links_to_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a data set has that is not downloaded."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"{i}.dcm").symlink_to(tmp_path / "annex" / str(i))
    assert "found none; 3 files cannot be read, such as" in refused(tmp_path / "in", capsys)


def test_linked_folders_are_followed_and_hidden_ones_are_not(tmp_path: Path) -> None:
    paths = series(tmp_path / "elsewhere", DATA, oblique(), **STUDY)
    (tmp_path / "in" / ".git").mkdir(parents=True)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "in")
    for path in paths:
        (tmp_path / "in" / ".git" / path.name).write_bytes(path.read_bytes())
    (found,) = dicom.series_of(tmp_path / "in")
    assert found.paths == [tmp_path / "in" / "linked" / path.name for path in paths]


def mosaic(data: np.ndarray, n: int = 3) -> np.ndarray:
    """Slices as the tiles of one."""
    x, y, z = data.shape
    tiles = np.zeros((n, n, y, x), data.dtype)
    tiles.reshape(n * n, y, x)[:z] = np.moveaxis(data, 2, 0).swapaxes(1, 2)
    return tiles.swapaxes(1, 2).reshape(n * y, n * x).T[:, :, None]


def private(path: Path, tag: int, kind: str, value: Any) -> None:
    header = pydicom.dcmread(path)
    header.add_new(tag, kind, value)
    header.save_as(path)


@pytest.mark.parametrize(
    "say",
    [
        lambda path: change(path, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        lambda path: change(path, ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"]),
        lambda path: private(path, 0x00651050, "DS", "9"),
        lambda path: private(path, 0x00651150, "UN", b"9 "),
        lambda path: private(path, 0x00211175, "CS", ["ORIGINAL", "PRIMARY", "MOSAIC"]),
        lambda path: None,
    ],
    ids=["Siemens", "UIH", "UIH, counted", "UIH, counted, as bytes", "ImageTypeText", "cleaned"],
)
def test_a_mosaic_is_one_whatever_says_so(tmp_path: Path, say: Callable[[Path], None]) -> None:
    (path,) = series(tmp_path, mosaic(phantom((40, 36, 24))[:, :, 8:17]).astype(np.int16), oblique())
    say(path)
    with pytest.raises(
        BadInput, match=r"expected a slice, got .*a mosaic of many; convert the series to NIfTI"
    ):
        dicom.scans([path])


@pytest.mark.slow
def test_mosaics_and_slices_of_public_scans_are_told_apart(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "test").glob("*.nii.gz")):
        image = nib.load(path)
        axis = grid.slice_axis(image.affine, image.shape[:3])
        data = np.moveaxis(np.asarray(image.dataobj, np.float32), axis, 2)
        data = np.rint(data / data.max() * 4000).astype(np.int16)
        middle = data.shape[2] // 2
        for z in (2, middle):
            assert len(dicom.scans(series(tmp_path / path.name, data[:, :, z : z + 1], oblique()))) == 1
        tiles = mosaic(data[:, :, middle - 4 : middle + 5])
        with pytest.raises(BadInput, match="tiles that are alike"):
            dicom.scans(series(tmp_path / path.name, tiles, oblique()))


def test_frames_that_were_a_mosaic_are_slices(tmp_path: Path) -> None:
    """They still say so, but each has a place of its own."""
    (made,) = dicom.scans(
        [enhanced(tmp_path, DATA, oblique(), ImageType=["DERIVED", "PRIMARY", "M", "MOSAIC"])]
    )
    np.testing.assert_array_equal(made.data, DATA * 0.5 - 2)


def test_a_slope_of_0_is_none(tmp_path: Path) -> None:
    series(tmp_path / "in", DATA, oblique(), **STUDY, RescaleSlope="0", RescaleIntercept="7")
    volume = io.read(tmp_path / "in")
    np.testing.assert_array_equal(volume.data, DATA)
    io.write(volume, tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").data, DATA)


def test_a_constant_image_beyond_16_bits_is_written(tmp_path: Path) -> None:
    series(tmp_path / "in", DATA, oblique(), **STUDY)
    volume = io.read(tmp_path / "in")
    io.write(volume.on(np.full_like(volume.data, 1e6), volume.affine), tmp_path / "out")
    np.testing.assert_array_equal(io.read(tmp_path / "out").data, 1e6)


def test_an_intercept_that_swallows_the_voxels(tmp_path: Path) -> None:
    """In float32 all would be 1e20; what a scanner writes is far from that."""
    for path in series(tmp_path / "far", DATA, oblique(), RescaleIntercept="1e20", RescaleSlope="0.5"):
        assert path.is_file()
    with pytest.raises(BadInput, match=r"float32 tells apart, got 0.5 at intensities of 1e\+20 to 1e\+20 \("):
        dicom.scans(sorted((tmp_path / "far").iterdir()))
    near = series(tmp_path / "near", DATA, oblique(), RescaleIntercept="-1024", RescaleSlope="0.001")
    (made,) = dicom.scans(near)
    np.testing.assert_allclose(made.data, DATA * 0.001 - 1024, rtol=1e-6)


@pytest.mark.parametrize("slope", ["1e-50", "1e-44", "-1e-39"])
def test_intensities_that_vanish_in_float32(tmp_path: Path, slope: str) -> None:
    """All would be 0, or numbers that have lost their digits; of one slice as of all."""
    paths = series(tmp_path, DATA, oblique())
    change(paths[3], RescaleSlope=slope, RescaleIntercept="0")
    with pytest.raises(BadInput, match=rf"0003\.dcm: .*tells apart, got {slope} at intensities of "):
        dicom.scans(paths)
    for path in paths:
        change(path, RescaleSlope="1e-20", RescaleIntercept="0")
    (made,) = dicom.scans(paths)
    np.testing.assert_allclose(made.data, DATA * 1e-20, rtol=1e-6)


def test_integers_of_32_bits(tmp_path: Path) -> None:
    """What float32 rounds of a wide range does not show; of a narrow one far from 0 it does."""
    wide = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    data = np.rint(DATA.astype(float) * (2**31 / (DATA.max() + 1)))
    paths = series(tmp_path / "wide", DATA, oblique(), **wide)
    for z, path in enumerate(paths):
        change(path, PixelData=data[:, :, z].T.astype("<i4").tobytes())
    (made,) = dicom.scans(paths)
    np.testing.assert_allclose(made.data, data, rtol=1e-7)
    for z, path in enumerate(paths):
        change(path, PixelData=(10**9 + DATA[:, :, z].T.astype("<i4")).tobytes())
    with pytest.raises(BadInput, match=r"tells apart, got 1 at intensities of 1e\+09 to 1e\+09"):
        dicom.scans(paths)


def test_a_type_that_there_is_not_is_named(tmp_path: Path) -> None:
    """Of an element whose value is to be read: one line, and no fault of pydicom's."""
    path = series(tmp_path, DATA, oblique())[0]
    content, element = path.read_bytes(), b"\x28\x00\x00\x01"  # BitsAllocated
    assert content.count(element + b"US") == 1
    path.write_bytes(content.replace(element + b"US", element + b"\x55\x00"))
    with pytest.raises(BadInput, match=r"0000\.dcm"):
        dicom.scans(sorted(tmp_path.glob("*.dcm")))


@pytest.mark.parametrize(("stored", "high"), [(12, 15), (16, 11), (32, 31), (0, -1)])
def test_bits_elsewhere_are_refused(tmp_path: Path, stored: int, high: int) -> None:
    paths = series(tmp_path, DATA, oblique(), BitsStored=stored, HighBit=max(0, high))
    with pytest.raises(BadInput, match="expected voxels of N bits that end at bit N-1"):
        dicom.scans(paths)


def test_bits_above_those_of_a_voxel_are_none_of_it(tmp_path: Path) -> None:
    """Negative ones in 12 bits, an overlay above."""
    signed = np.where(DATA > 200, DATA, -DATA)
    paths = series(tmp_path, (signed & 0xFFF) | 0x3000, oblique(), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(dicom.scans(paths)[0].data, signed)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "got MONOCHROME1; its intensities are inverted"),
        ({"PhotometricInterpretation": None}, "got none"),
        ({"PixelSpacing": None}, "expected 2 finite numbers as PixelSpacing, got none"),
        ({"PixelSpacing": [0, 0.9]}, "expected PixelSpacing of 0.0001 to 10000 mm, got 0 x 0.9; correct its"),
        ({"PixelSpacing": [-0.8, 0.9]}, "expected PixelSpacing of 0.0001 to 10000 mm, got -0.8 x 0.9;"),
        ({"PixelSpacing": ["1e308", "1e308"]}, r"expected PixelSpacing of 0.0001 to 10000 mm, got 1e\+308 x"),
        ({"PixelSpacing": [0.8, 20000]}, "expected PixelSpacing of 0.0001 to 10000 mm, got 0.8 x 20000;"),
        ({"PixelSpacing": ["1e-300", "0.9"]}, "expected PixelSpacing of 0.0001 to 10000 mm, got 1e-300 x"),
        ({"SliceThickness": "1e308"}, r"and SpacingBetweenSlices of at most 10000 mm, got 1e\+308"),
        ({"SpacingBetweenSlices": "-1e308"}, r"of at most 10000 mm, got 3.3 and -1e\+308; correct"),
        ({"ImagePositionPatient": ["1e308", "1", "1"]}, r"ImagePositionPatient below 1e\+09 mm, got"),
        ({"ImageOrientationPatient": ["1e308", "1e308", "0", "1e308", "-1e308", "0"]}, "at right angles"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "two directions of length 1 at right angles"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.1, 1, 0]}, "two directions of length 1 at right angles"),
        ({"PixelData": None, "FloatPixelData": bytes(26 * 34 * 4), "BitsAllocated": 32, "BitsStored": None,
          "HighBit": None, "PixelRepresentation": None}, "expected integers, got FloatPixelData"),
        ({"PixelData": None}, "cannot be read as DICOM"),
        ({"Rows": 30}, "its header promises 1,560 bytes of pixels, but it has 1,768"),
        ({"Rows": 0}, "promises 0 bytes"),
        ({"NumberOfFrames": -3}, "promises -"),
        ({"NumberOfFrames": 999_999_999_999}, r"promises over 10\^15 bytes of pixels, but"),
    ],
)  # fmt: skip
def test_what_a_header_says_and_is_not_so(tmp_path: Path, tags: dict[str, Any], text: str) -> None:
    removed = {name: value for name, value in tags.items() if value is None}
    paths = series(
        tmp_path, DATA, oblique(), **{k: v for k, v in tags.items() if k not in removed}, **removed
    )
    with pytest.raises(BadInput, match=text):
        dicom.scans(paths)


def test_a_slice_alone_without_thickness(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected the SliceThickness of a slice that is alone, got none"):
        dicom.scans(series(tmp_path, DATA, oblique(), SliceThickness=None)[:1])
    (made,) = dicom.scans(
        series(tmp_path, DATA, oblique(), SliceThickness=None, SpacingBetweenSlices=3.3)[:1]
    )
    np.testing.assert_allclose(made.affine, oblique(), atol=1e-5)


def test_slices_of_one_name_in_two_folders(tmp_path: Path) -> None:
    """They are told by their folders."""
    one, other = (series(tmp_path / name, DATA, oblique())[0] for name in "ab")
    with pytest.raises(BadInput, match=f"{other}: it lies where {one} of the same series lies"):
        dicom.scans([one, other])


@pytest.mark.parametrize(("said", "axis"), [("2D", 2), ("3D", None), (None, None)])
def test_the_slices_of_a_2d_scan_are_those_of_its_files(
    tmp_path: Path, said: str | None, axis: int | None
) -> None:
    """Though its voxels are coarser in their plane."""
    named = {"MRAcquisitionType": said} if said else {}
    (made,) = dicom.scans(series(tmp_path, DATA, oblique((3.75, 3.75, 3.0)), **named))
    assert made.slices == axis
    assert grid.slice_axis(made.affine, made.data.shape, named=made.slices) == (2 if axis == 2 else 1)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_encodings(tmp_path: Path, syntax: str) -> None:
    paths = series(tmp_path, DATA, oblique(), **STUDY)
    for path in paths:
        header = pydicom.dcmread(path)
        header.PixelData = header.pixel_array.astype(
            ">i2" if syntax == ExplicitVRBigEndian else "<i2"
        ).tobytes()
        header.file_meta.TransferSyntaxUID = syntax
        header["PixelData"].VR = "OW"
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        again = pydicom.Dataset(header)
        again.file_meta = header.file_meta
        pydicom.dcmwrite(path, again, implicit_vr=implicit, little_endian=little)
    np.testing.assert_array_equal(io.read(tmp_path).data, DATA)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("name", ["{}.dcm", "IM{}"])
def test_files_without_a_preamble_are_read(tmp_path: Path, implicit: bool, name: str) -> None:
    """And those without a transfer syntax; what merely begins like them is passed over."""
    for i, path in enumerate(series(tmp_path, DATA, oblique(), **STUDY)):
        header = pydicom.dcmread(path)
        del header.file_meta
        header.preamble = None
        pydicom.dcmwrite(path, header, implicit_vr=implicit, little_endian=True)
        assert path.read_bytes()[:2] == b"\x08\0"
        path.rename(tmp_path / name.format(i))
    (tmp_path / "notes").write_bytes(b"\x08\0" + bytes(range(256)) * 4)
    np.testing.assert_array_equal(io.read(tmp_path).data, DATA)


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        ("1.2.3", "its transfer syntax is unknown .1.2.3."),
        ("1.2.840.10008.1.2.4.100", "cannot be read as DICOM"),
    ],
)
def test_transfer_syntaxes_that_are_no_use(tmp_path: Path, syntax: str, text: str) -> None:
    paths = series(tmp_path, DATA, oblique())
    change_syntax(paths[2], syntax)
    with pytest.raises(BadInput, match=text):
        dicom.scans(paths)


def change_syntax(path: Path, syntax: str) -> None:
    whole = path.read_bytes()
    old = b"1.2.840.10008.1.2.1\0"
    assert old in whole
    new = syntax.encode() + b"\0" * (len(syntax) % 2)
    at = whole.index(old)
    whole = whole[: at - 2] + len(new).to_bytes(2, "little") + new + whole[at + len(old) :]
    path.write_bytes(whole)


def bomb(path: Path, size: int) -> None:
    """A deflated slice with so many bytes of pixels."""
    change_syntax(path, DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    start = whole.index(b"\x08\0\x16\0")  # the first element that is no longer of the file's own
    end = whole.index(b"\xe0\x7f\x10\0") + 12
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [packer.compress(whole[start : end - 4] + size.to_bytes(4, "little"))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    path.write_bytes(b"".join([whole[:start], *parts, packer.flush()]))


def test_what_a_deflated_file_unpacks_to_is_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """400 kB that would become 400 MB."""
    (path,) = series(tmp_path / "in", DATA[:, :, :1], oblique(), **STUDY)
    bomb(path, 400 << 20)
    assert path.stat().st_size < 1 << 19
    tracemalloc.start()
    assert "it unpacks to more than 67,108,864 bytes; unpack it first" in refused(tmp_path / "in", capsys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


@pytest.mark.parametrize("cut", [10, 100])
def test_a_deflated_file_that_is_damaged(tmp_path: Path, cut: int) -> None:
    paths = series(tmp_path, DATA, oblique())
    header = pydicom.dcmread(paths[2])
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(paths[2])
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-cut])
    with pytest.raises(BadInput, match="it is cut off"):
        dicom.scans(paths)
    paths[2].write_bytes(whole[:-cut] + b"\xff" * cut)
    with pytest.raises(BadInput, match=f"^{paths[2]}: "):
        dicom.scans(paths)


def compressed(folder: Path, syntax: str, data: np.ndarray = LARGE, **tags: Any) -> list[Path]:
    paths = series(folder, data, oblique(), **STUDY)
    for path in paths:
        header = pydicom.dcmread(path)
        header.compress(syntax, generate_instance_uid=False)
        for name, value in tags.items():
            setattr(header, name, value)
        header.save_as(path)
    return paths


@pytest.mark.parametrize("size", [(70, 66), (35, 132), (200, 200), (30, 30), (66, 140)])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
def test_packed_pixels_of_another_size_are_refused(
    tmp_path: Path, syntax: str, size: tuple[int, int]
) -> None:
    """GDCM ends the process for some, and makes another picture of others."""
    if syntax == RLELossless and size[0] * size[1] == 70 * 66:
        pytest.skip("RLE does not say its size")
    rows, columns = size
    with pytest.raises(BadInput, match="cannot be read as DICOM"):
        dicom.scans(compressed(tmp_path, syntax, Rows=rows, Columns=columns))


def lossless_jpeg(path: Path, **tags: Any) -> None:
    """Packed by GDCM, whose decoder aborts where the header says more bits."""
    gdcm = pytest.importorskip("gdcm")
    reader, turn, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    turn.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    turn.SetInput(reader.GetImage())
    assert turn.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(turn.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()
    change(path, **tags)


def test_a_decoder_that_aborts_ends_no_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = series(tmp_path / "in", LARGE, oblique(), **STUDY)
    for path in paths:
        lossless_jpeg(path)
    np.testing.assert_array_equal(io.read(tmp_path / "in").data, LARGE)
    change(paths[1], BitsAllocated=32)
    said = refused(tmp_path / "in", capsys)
    assert f"{paths[1]}: its pixels are damaged: their decoder (JPEG Lossless" in said
    assert "ended; replace the file" in said


def test_packed_pixels_of_more_bits_are_refused(tmp_path: Path) -> None:
    """GDCM would leave the upper ones out."""
    (path,) = series(tmp_path, LARGE[:, :, :1], oblique(), **STUDY)
    lossless_jpeg(path, BitsStored=8, HighBit=7)
    with pytest.raises(
        BadInput, match="70 columns and 8 bits, its pixels say 66 rows, 70 columns and 16 bits"
    ):
        dicom.scans([path])


def test_a_decoder_that_does_not_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = compressed(tmp_path, JPEGLSLossless)
    monkeypatch.setattr(pixels, "SECONDS", 1)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    right = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **how: right(sleeping, **how))
    began = time.perf_counter()
    with pytest.raises(BadInput, match="took longer than 1 s"):
        dicom.scans(paths)
    assert time.perf_counter() - began < 20


def test_one_process_decodes_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, started, right = compressed(tmp_path, RLELossless), [], pixels._started
    monkeypatch.setattr(pixels, "_started", lambda: started.append(right()) or started[-1])
    np.testing.assert_array_equal(dicom.scans(paths)[0].data, LARGE)
    assert len(started) == 1
    assert started[0].returncode is not None
    dicom.scans(series(tmp_path / "plain", LARGE, oblique()))
    assert len(started) == 1


def put(path: Path, name: str, kind: bytes, value: bytes) -> None:
    """An element as no library would write it, in a file of explicit little-endian elements."""
    tag = pydicom.datadict.tag_for_keyword(name)
    wanted, at, whole = (tag >> 16, tag & 0xFFFF), 132, path.read_bytes()
    while at < len(whole):
        here, long = struct.unpack_from("<HH", whole, at), whole[at + 4 : at + 6] in LONG
        size = (
            struct.unpack_from("<I", whole, at + 8)[0] + 12
            if long
            else whole[at + 6] + 256 * whole[at + 7] + 8
        )
        if here >= wanted:
            break
        at += size
    value += b"\0" * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in LONG else struct.pack("<H", len(value))
    made = struct.pack("<HH", *wanted) + kind + length + value
    path.write_bytes(whole[:at] + made + whole[at + size * (here == wanted) :])


LONG = (b"OB", b"OW", b"UN", b"SQ", b"UT")  # kinds with lengths of four bytes
JUNK = [
    (b"UN", b"1\\2 "), (b"UN", b"1,5 "), (b"UN", b"abc "), (b"UN", b"\xff\xfe\0\1"), (b"LO", b"abc "),
    (b"US", b"\7\0"), (b"UN", b""), (b"UN", b"1e400 "), (b"UN", b"nan "), (b"OB", b"\x1b[2J"), (b"SQ", b""),
    (b"DS", b"1e308 "), (b"DS", b"1e308\\-1e308 "), (b"DS", b"1e308\\1e308\\1e308\\-1e308\\0\\0 "),
    (b"DS", b"1,5 "), (b"IS", b"1.5 "), (b"UI", b"1.2\\3.4"), (b"FD", b"\0\0\0\0\0\0\xf8\x7f"),
]  # fmt: skip
READ = """Rows BitsAllocated BitsStored HighBit SamplesPerPixel PhotometricInterpretation PixelSpacing
    ImagePositionPatient ImageOrientationPatient SliceThickness RescaleSlope RescaleIntercept ImageType
    EchoTime NumberOfFrames TemporalPositionIdentifier SeriesInstanceUID PerFrameFunctionalGroupsSequence
    EchoNumbers SharedFunctionalGroupsSequence MRAcquisitionType PixelRepresentation"""
COPIED = """SeriesNumber SeriesDescription StudyInstanceUID FrameOfReferenceUID SOPInstanceUID SOPClassUID
    PatientSize EchoTrainLength AcquisitionDate ScanningSequence WindowCenter WindowWidth SpecificCharacterSet
    SoftwareVersions FlipAngle ImageType PatientSex"""


@pytest.mark.parametrize("name", READ.split())
def test_values_of_any_kind_are_read_or_told_in_a_line(tmp_path: Path, name: str) -> None:
    (path,) = series(tmp_path, DATA[:, :, :1], oblique(), **STUDY)
    whole = path.read_bytes()
    for kind, value in JUNK:
        path.write_bytes(whole)
        put(path, name, kind, value)
        with contextlib.suppress(BadInput):
            assert io.read(tmp_path).data.shape == (26, 34, 1)


@pytest.mark.parametrize("name", COPIED.split())
def test_values_of_any_kind_are_copied_or_left_out(tmp_path: Path, name: str) -> None:
    """They do no harm to the voxels, and what is written of them is valid."""
    paths = series(tmp_path / "in", DATA[:, :, :2], oblique(), **STUDY)
    whole = [path.read_bytes() for path in paths]
    for i, (kind, value) in enumerate(JUNK):
        for path, content in zip(paths, whole, strict=True):
            if name == "SpecificCharacterSet":  # pydicom reads nothing with one that is no text
                kind, value = b"CS", value.replace(b"\0", b"0")
            path.write_bytes(content)
            put(path, "PatientName", b"PN", b"Doe^Jos\xe9" if i % 2 else b"Doe^Jane")
            put(path, name, kind, value)
        volume = io.read(tmp_path / "in")
        np.testing.assert_array_equal(volume.data, DATA[:, :, :2])
        assert all(text.isprintable() for text in describe.said(volume.header).values())
        io.write(volume, tmp_path / f"out{i}")
        if shutil.which("dciodvfy"):
            without_errors(tmp_path / f"out{i}")
        np.testing.assert_array_equal(io.read(tmp_path / f"out{i}").data, DATA[:, :, :2])


def phase_in_a_stack(folder: Path) -> None:
    """All slices but the lowest."""
    for path in series(folder, DATA, oblique(), **STUDY)[1:]:
        change(path, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])


def phase_of_a_later_echo(folder: Path) -> None:
    series(folder / "a", DATA, oblique(), **STUDY, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    phase = ["ORIGINAL", "PRIMARY", "P", "ND"]
    series(folder / "b", DATA, oblique(), **STUDY, EchoNumbers=2, EchoTime=90, ImageType=phase)


def phase_in_a_frame(folder: Path) -> None:
    """Of an enhanced image, which as a whole says that it is mixed."""
    path = enhanced(folder, DATA, oblique(), **STUDY, ComplexImageComponent="MIXED")
    shutil.rmtree(folder / "single")
    image, kind = pydicom.dcmread(path), pydicom.Dataset()
    kind.FrameType, kind.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "T1", "NONE"], "PHASE"
    image.PerFrameFunctionalGroupsSequence[5].MRImageFrameTypeSequence = [kind]
    image.save_as(path)


@pytest.mark.parametrize("make", [phase_in_a_stack, phase_of_a_later_echo, phase_in_a_frame])
def test_every_slice_is_asked_whether_it_is_phase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    make(tmp_path / "in")
    assert "got what looks like phase, or a part of a complex image (its DICOM header says P" in refused(
        tmp_path / "in", capsys
    )
    words = ["upscale", str(tmp_path / "in"), str(tmp_path / "out.nii"), "--method", "bicubic"]
    assert cli.run([*words, "--no-label-check"]) == 0
    if make is phase_of_a_later_echo:  # the magnitude alone is a scan
        assert cli.run([*words, "--volume", "1", "--force"]) == 2
        assert cli.run([*words, "--volume", "0", "--force"]) == 0
