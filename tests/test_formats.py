"""Every format that scans come in and go out: positions, values, series, and what is refused."""

import gzip
import itertools
import re
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel import orientations

import seran
from seran import cli, grid, io, sharpen
from seran.classical import bicubic
from seran.errors import BadInput
from seran.io import itk
from seran.job import record
from seran.volume import Series, Volume
from tests.conftest import enlarged, oblique, phantom

ENDS = [end for end in io.FORMATS if end not in io.ONE_FILE]
FLIPPED = np.diag([-1.0, -1, 1, 1])
"""RAS+ to LPS+ and back."""


def save(data: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    """By an independent library: x, y, z (, t)."""
    end = io.format_of(path)
    if end in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(data, affine), path)
    elif end in (".hdr", ".img"):
        nib.save(nib.Nifti1Pair(data, affine), path)
    elif end in (".mgh", ".mgz"):
        nib.save(nib.MGHImage(data, affine), path)
    else:
        lps = FLIPPED @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        frames = [data] if data.ndim == 3 else [data[..., t] for t in range(data.shape[3])]
        made = [sitk.GetImageFromArray(np.ascontiguousarray(f.T)) for f in frames]
        for image in made:
            image.SetSpacing(spacing.tolist())
            image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
            image.SetOrigin(lps[:3, 3].tolist())
        sitk.WriteImage(made[0] if data.ndim == 3 else sitk.JoinSeries(made), str(path))
    return path


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine (RAS+) by an independent library."""
    if io.format_of(path) in (".mgh", ".mgz"):
        content = path.read_bytes()  # nibabel leaves .mgh files open
        image = nib.MGHImage.from_bytes(gzip.decompress(content) if path.suffix == ".mgz" else content)
        return np.asanyarray(image.dataobj), image.affine
    read = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    n = read.GetDimension()
    matrix[:3, :3] = (np.reshape(read.GetDirection(), (n, n)) * read.GetSpacing())[:3, :3]
    matrix[:3, 3] = read.GetOrigin()[:3]
    return sitk.GetArrayFromImage(read).T, FLIPPED @ matrix


def centroid(data: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Of the intensities, in mm."""
    at = [np.average(i, weights=data) for i in np.indices(data.shape)]
    return affine[:3, :3] @ np.array(at) + affine[:3, 3]


def blob(shape: tuple[int, int, int]) -> np.ndarray:
    """A smooth spot off the middle."""
    at = np.meshgrid(*[np.arange(n) - 0.42 * n for n in shape], indexing="ij")
    return (900 * np.exp(-sum((a / 1.7) ** 2 for a in at))).astype(np.float32)


@pytest.mark.parametrize("end", ENDS)
def test_a_blob_keeps_its_millimetres_in_all_48_orientations(end: str, tmp_path: Path) -> None:
    """Read, upscale, write; the result is read by another library."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turn = np.column_stack([order, signs])
            data = orientations.apply_orientation(blob((15, 17, 12)), turn)
            affine = oblique() @ orientations.inv_ornt_aff(turn, (15, 17, 12))
            source = save(np.ascontiguousarray(data), affine, tmp_path / f"in{end}")
            result = enlarged(io.read(source), bicubic(2), 2, "corner")
            io.write(result, tmp_path / f"out{end}")
            made, where = load(tmp_path / f"out{end}")
            assert made.size == 4 * data.size
            np.testing.assert_allclose(centroid(made, where), centroid(data, affine), atol=0.01)
            again = io.read(tmp_path / f"out{end}")
            np.testing.assert_allclose(again.affine, where, atol=1e-4)
            np.testing.assert_array_equal(again.data, made)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_values_and_places_are_those_of_other_libraries(end: str, dtype: str, tmp_path: Path) -> None:
    data = (phantom((9, 7, 5)) % 200).astype(dtype)
    affine = oblique(left_handed=True)
    scan = io.read(save(data, affine, tmp_path / f"in{end}"))
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-4)
    assert scan.data.dtype == np.float32


@pytest.mark.parametrize(("end", "out"), list(itertools.product(ENDS, [".nii.gz", ".mgz", ".mha", ".img"])))
def test_any_format_becomes_any_other(end: str, out: str, tmp_path: Path) -> None:
    source = save(phantom((9, 7, 5)), oblique(), tmp_path / f"in{end}")
    io.write(io.read(source), tmp_path / f"out{out}")
    made, where = load(tmp_path / f"out{out}")
    np.testing.assert_array_equal(made, phantom((9, 7, 5)))
    np.testing.assert_allclose(where, oblique(), atol=1e-4)


@pytest.mark.parametrize("end", ENDS)
def test_a_series_is_sharpened_volume_by_volume(end: str, tmp_path: Path) -> None:
    """Each as if it were alone; an empty frame stays empty; one can be chosen."""
    data = np.stack([phantom((26, 22, 5), t) for t in range(4)], -1)
    data[..., 2] = 0
    source, out = save(data, oblique(), tmp_path / f"in{end}"), tmp_path / f"out{end}"
    assert cli.run(["upscale", str(source), str(out), "--method", "bicubic"]) == 0
    made, where = load(out)
    assert made.shape == (52, 44, 5, 4)
    assert not made[..., 2].any()
    assert cli.run(["upscale", str(source), str(out), "--method", "bicubic", "--volume", "3", "--force"]) == 0
    one, there = load(out)
    np.testing.assert_array_equal(one, made[..., 3])
    np.testing.assert_allclose(where, there)
    alone = save(data[..., 3], oblique(), tmp_path / f"alone{end}")
    io.write(enlarged(io.read(alone), bicubic(2), 2, "corner"), out)
    np.testing.assert_array_equal(load(out)[0], one)


def test_the_fourth_axis_of_nifti_is_kept(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.stack([phantom((9, 8, 5), t) for t in range(3)], -1), oblique())
    image.header["pixdim"][4], image.header["toffset"] = 2.5, 1.25
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "in.nii.gz")
    out = tmp_path / "out.nii"
    assert (
        cli.run(["upscale", str(tmp_path / "in.nii.gz"), str(out), "--method", "bicubic", "--strict", "off"])
        == 0
    )
    header = nib.load(out).header
    assert header.get_zooms()[3] == 2.5
    assert header["toffset"] == 1.25
    assert header.get_xyzt_units() == ("mm", "sec")


def test_a_series_is_not_one_scan(tmp_path: Path) -> None:
    source = save(np.ones((6, 7, 5, 2), np.float32), oblique(), tmp_path / "a.nii")
    with pytest.raises(BadInput, match="got a series of 2 volumes"):
        io.read(source)
    with pytest.raises(BadInput, match=r"--volume 2: must be from 0 to 1; .* has 2 volumes"):
        io.read_series(source, only=2)
    several = save(np.ones((6, 7, 5, 2, 3), np.float32), oblique(), tmp_path / "b.nii")
    with pytest.raises(BadInput, match="got 5-D"):
        io.read_series(several)


def test_the_times_of_mgh_are_kept(tmp_path: Path) -> None:
    image = nib.MGHImage(phantom((9, 8, 5)), oblique())
    image.header["tr"], image.header["flip_angle"], image.header["te"] = 2300, 0.15, 2.9
    nib.save(image, tmp_path / "in.mgz")
    io.write(enlarged(io.read(tmp_path / "in.mgz"), bicubic(2), 2, "corner"), tmp_path / "out.mgz")
    made = nib.load(tmp_path / "out.mgz").header
    assert [float(made[n]) for n in ("tr", "flip_angle", "te")] == pytest.approx([2300, 0.15, 2.9])


@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_the_texts_and_the_fourth_axis_of_itk_are_kept(end: str, tmp_path: Path) -> None:
    frames = [sitk.GetImageFromArray(phantom((5, 22, 26), t)) for t in range(3)]
    image = sitk.JoinSeries(frames, 1.5, 2.5)
    image.SetMetaData("Protocol", "a \\ TSE")
    sitk.WriteImage(image, str(tmp_path / f"in{end}"))
    out = tmp_path / f"out{end}"
    assert cli.run(["upscale", str(tmp_path / f"in{end}"), str(out), "--method", "bicubic"]) == 0
    made = sitk.ReadImage(str(out))
    assert made.GetMetaData("Protocol") == "a \\ TSE"
    assert (made.GetSize(), made.GetSpacing()[3], made.GetOrigin()[3]) == ((52, 44, 5, 3), 2.5, 1.5)


@pytest.mark.parametrize("end", [".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_simpleitk_reads_what_is_written_without_it(end: str, dtype: str, tmp_path: Path) -> None:
    data = np.rint(phantom((9, 7, 5)) % 200)
    volume = Volume(data, oblique(left_handed=True), itk.Kept({"a b": "two\nlines", "NDims": "7", "c": "d"}))
    with io.writer(tmp_path / f"out{end}", 1, dtype) as writer:
        writer.add(volume)
    made, where = load(tmp_path / f"out{end}")
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, data)
    np.testing.assert_allclose(where, volume.affine, atol=1e-9)


@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_a_header_that_points_elsewhere_is_refused(end: str, tmp_path: Path) -> None:
    """Whoever wrote it would choose which file is read."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 4)
    texts = {
        ".nrrd": "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: secret\n\n",
        ".mha": "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = secret\n",
    }
    path = tmp_path / f"in{end}"
    path.write_text(texts[end])
    with pytest.raises(BadInput, match="voxels in the same file"):
        io.read(path)


@pytest.mark.parametrize("end", ENDS)
def test_a_header_that_promises_too_much_is_refused(end: str, tmp_path: Path) -> None:
    """Before anything is allocated."""
    save(np.zeros((9, 8, 7), np.int16), oblique(), tmp_path / f"in{end}")
    path = io.written(tmp_path / f"in{end}")[0]
    packed = end in (".nii.gz", ".mgz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    if end in (".nii", ".nii.gz", ".hdr", ".img"):
        content[42:48] = np.array([30000] * 3, "<i2").tobytes()
    elif end in (".mgh", ".mgz"):
        content[4:16] = np.array([30000] * 3, ">i4").tobytes()
    else:
        content = bytearray(bytes(content).replace(b"9 8 7", b"30000 30000 30000"))
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BadInput, match="promises 54,000,000,000,000 bytes of voxels"):
        io.read(tmp_path / f"in{end}")


@pytest.mark.parametrize("end", ENDS)
def test_what_is_not_the_format_is_named(end: str, tmp_path: Path) -> None:
    path = tmp_path / f"in{end}"
    for content in (b"", b"not an image at all" * 60):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=f"in{end}"):
            io.read(path)
    save(phantom((19, 18, 17)), oblique(), path)
    for file in io.written(path):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadInput, match=r"in\."):
        io.read(path)


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    for kind in (sitk.sitkVectorUInt8, sitk.sitkComplexFloat32):
        sitk.WriteImage(sitk.Image([5, 6, 7], kind), str(tmp_path / "a.nrrd"))
        with pytest.raises(BadInput, match="expected one real number per voxel"):
            io.read(tmp_path / "a.nrrd")


def test_capitals_name_a_pair(tmp_path: Path) -> None:
    """S.HDR and S.IMG, as old systems wrote them; the result's names are as they are given."""
    volume = Volume(phantom((26, 34, 5)), oblique())
    io.write(volume, tmp_path / "s.hdr")
    for end in ("hdr", "img"):
        (tmp_path / f"s.{end}").rename(tmp_path / f"S.{end.upper()}")
    for end in ("HDR", "IMG"):
        np.testing.assert_array_equal(io.read(tmp_path / f"S.{end}").data, volume.data)
    io.write(volume, tmp_path / "OUT.IMG")
    assert {path.name for path in tmp_path.iterdir()} == {"S.HDR", "S.IMG", "OUT.HDR", "OUT.IMG"}


@pytest.mark.parametrize("end", [".nii", ".nii.gz", ".hdr", ".mgz", ".mha", ".nrrd"])
def test_a_grid_alone_takes_no_voxels(tmp_path: Path, end: str) -> None:
    """For ``--like``: whatever is not finite there, and without memory; a damaged file is refused."""
    data = phantom((26, 34, 5))
    data[2, 3, 1] = np.nan
    path = tmp_path / f"a{end}"
    io.write(Volume(data, oblique()), path)
    found = next(io.read_series(path, voxels=False).volumes)
    assert (found.data.shape, found.data.strides, found.data.any()) == ((26, 34, 5), (0, 0, 0), False)
    np.testing.assert_allclose(found.affine, oblique(), atol=1e-5)
    for file in io.written(path)[-1:]:
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(BadInput):
        io.read_series(path, voxels=False)


@pytest.mark.parametrize("end", [".nii.gz", ".hdr", ".mgz", ".mha"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
def test_integers_are_rounded_and_held_at_their_limits(
    end: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never wrapped round: where the result overshoots a scan that reaches them."""
    low, high = (-2e9, 2e9) if dtype in ("int32", "float64") else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    part = phantom((26, 22, 5))
    part = np.minimum(part / (0.4 * part.max()), 1).astype(float)
    data = (low + (high - low) * part).astype(np.float32)
    source, out = save(data, oblique(), tmp_path / "in.nii"), tmp_path / f"out{end}"
    command = ["upscale", str(source), str(out), "--method", "bicubic", "--strict", "off"]
    if end == ".mgz" and dtype in ("uint16", "float64"):
        assert cli.run([*command, "--dtype", dtype]) == 2
        assert capsys.readouterr().err.startswith(f"seran: {out}: MGH has voxels of uint8, int16,")
        return
    assert cli.run([*command, "--dtype", dtype]) == 0
    made, _ = load(out)
    assert cli.run([*command[:2], str(tmp_path / "plain.nii"), *command[3:], "--force"]) == 0
    plain, _ = load(tmp_path / "plain.nii")
    assert made.dtype.newbyteorder("=") == dtype
    if dtype != "float64":
        limits = np.iinfo(dtype)
        assert plain.max() > limits.max
        plain = np.clip(np.rint(plain.astype(float)), limits.min, limits.max)
    np.testing.assert_array_equal(made, plain)


@pytest.mark.parametrize(
    ("times", "add", "dtype", "wrong"),
    [
        (1, 0, "uint8", "0 to [1-9]\\d{2,}.*, and it holds 0 to 255"),
        (1, -100, "uint16", "from -100 to .*, and it holds 0 to 65535"),
        (100, 0, "int16", "and it holds -32768 to 32767"),
        (1e-3, 0, "int16", "from 0 to [01]\\..*, and rounding would leave fewer than 64 values"),
        (1e9, 0, "int32", "and it holds -2147483648 to 2147483647"),
        (1, -100, "int16", ""),
        (1e-3, 0, "float64", ""),
        (0.05, 0, "uint8", ""),  # of whole numbers, few as they are
    ],
)
def test_a_type_that_cannot_hold_the_scan_is_refused_before_work(
    times: float, add: float, dtype: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = phantom((26, 22, 5)) * np.float32(times) + np.float32(add)
    source, out = tmp_path / "in.nii", tmp_path / "out.nii"
    save(np.rint(data) if times == 0.05 else data, oblique(), source)
    done = cli.run(["upscale", str(source), str(out), "--method", "bicubic", "--dtype", dtype])
    said = capsys.readouterr().err
    if not wrong:
        assert (done, said) == (0, "")
        return
    assert done == 2
    assert re.fullmatch(f"seran: --dtype {dtype}: intensities go .*{wrong}; float32, .* keeps them\n", said)
    assert not out.exists()
    with pytest.raises(BadInput, match=wrong):
        seran.write(seran.read(source), out, dtype=dtype)
    assert not out.exists()


@pytest.mark.slow
def test_a_filled_k_space_is_said_and_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A noisy scan padded to 160 % in k-space: what the scanner filled is found, and estimated."""
    noise = np.random.default_rng(0).normal(300, 20, (40, 50, 6)).astype(np.float32)
    small = phantom((40, 50, 6)) + noise
    spectrum = np.fft.fftshift(np.fft.fft2(small, axes=(0, 1)), axes=(0, 1))
    padded = np.pad(spectrum, ((12, 12), (15, 15), (0, 0)))
    large = np.fft.ifft2(np.fft.ifftshift(padded, axes=(0, 1)), axes=(0, 1)).real * (64 * 80) / (40 * 50)
    affine = grid.rescale(oblique(), (1.6, 1.6, 1), "center")
    source, out = save(large.astype(np.float32), affine, tmp_path / "in.nii"), tmp_path / "out.nii"
    command = ["upscale", str(source), str(out), "--plane", "axial", "--noise", "off"]
    assert cli.run([*command, "--method", "bicubic"]) == 2
    assert "--noise: only native weights use it, bicubic does not;" in capsys.readouterr().err
    assert cli.run([*command[:-2], "--method", "bicubic"]) == 0
    assert re.search("filled with zeros beyond 6.% along rows and 6.% along columns", capsys.readouterr().out)
    assert cli.run([*command, "--scale", "1", "--force"]) == 0
    made, found = io.read(out), record.read(out)
    assert found is not None
    assert found.kspace_support == pytest.approx((0.625, 0.625), abs=0.04)
    assert made.data.shape == (64, 80, 6)
    np.testing.assert_allclose(made.affine, affine, atol=1e-4)
    near = np.abs(made.data - io.read(source).data).mean()
    assert 0 < near < 0.1 * np.ptp(small)  # what was filled is estimated, in the same place
    whole = [*command, "--acquired", "1", "1", "--scale", "1", "--force"]
    assert cli.run(whole) == 0
    assert "is filled" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("end", ENDS)
def test_no_more_than_a_few_volumes_of_a_series_are_alive(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, whose header is kept, the one that is written, and the one that is made."""
    plain, made, most = sharpen.upscale, [], 0

    def counted(*args: object, **options: object) -> tuple[Volume, Volume | None]:
        nonlocal most
        result = plain(*args, **options)  # type: ignore[arg-type]
        made.append(weakref.ref(result[0]))
        most = max(most, sum(one() is not None for one in made))
        return result

    monkeypatch.setattr(sharpen, "upscale", counted)
    data = np.stack([phantom((12, 14, 3), t) for t in range(9)], -1)
    source = save(data, oblique(), tmp_path / f"in{end}")
    command = ["upscale", str(source), str(tmp_path / f"out{end}"), "--method", "bicubic", "--strict", "off"]
    assert cli.run(command) == 0
    assert len(made) == 9
    assert most <= 3


@pytest.mark.parametrize("end", ENDS)
def test_a_writer_takes_as_many_volumes_as_were_announced(end: str, tmp_path: Path) -> None:
    """One by one, the same bytes as ever; too few, too many or of another shape are an error."""
    volume = Volume(phantom((9, 7, 5)), oblique())
    put(tmp_path / f"out{end}", 2, [volume, volume.on(volume.data + 1, volume.affine)])
    np.testing.assert_array_equal(load(tmp_path / f"out{end}")[0][..., 1], volume.data + 1)
    cases = {
        "expected 3 volumes, got 1": (3, [volume]),
        "as number 2": (1, [volume, volume]),
        "of 9x7x5 voxels, got 8x7x5": (2, [volume, volume.on(volume.data[:8], volume.affine)]),
    }
    for text, (count, volumes) in cases.items():
        with pytest.raises(ValueError, match=text):
            put(tmp_path / f"bad{end}", count, volumes)


def put(path: Path, count: int, volumes: list[Volume]) -> None:
    with io.writer(path, count) as out:
        for volume in volumes:
            out.add(volume)


@pytest.mark.parametrize("end", ENDS)
def test_a_mistake_of_ours_is_not_told_as_damage(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(phantom((9, 7, 5)), oblique(), tmp_path / f"in{end}")

    def mistake(*args: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(io.voxels, "usable_affine", mistake)
    with pytest.raises(KeyError):
        io.read(path)


def test_a_scan_is_one_line() -> None:
    volume = Volume(phantom((9, 7, 5)), np.diag([-0.9, 0.8, 3.3, 1]))
    assert repr(volume) == "Volume(9x7x5, 0.9x0.8x3.3 mm, LAS)"
    assert repr(Series(2, iter([volume] * 2))) == "Series(2 volumes)"
