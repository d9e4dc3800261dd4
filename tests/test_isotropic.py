"""Thick slices to thin ones: grids, places, what is refused, what is stated; the network itself."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.ndimage import center_of_mass, zoom

import seran
from seran import acquisition, adapt, cli, grid, isotropic, methods, profiles, resample
from seran.engines import Engine, Running
from seran.errors import BadInput
from seran.grid import Grid
from seran.job import steps as job
from seran.job.options import Options, Scanner, Target
from seran.job.record import slice_thickness
from seran.profiles import Profile
from seran.quality import checks
from seran.quality.provenance import Acquired, Provenance
from seran.quality.provenance import shared as meet
from seran.sharpen import Across, Normalisation
from seran.volume import Volume
from tests.conftest import oblique
from tests.test_dicom import series

F32 = Engine(precision="f32")
THIN = Target(isotropic="auto")


def cubic(k: int) -> Running:
    """In place of a network: each row k times, which keeps means and the outer faces."""
    return Running(lambda low: low[:, 1].repeat(k, 1), "none", "f32")


REPEATED = Across("none.onnx", "", cubic)


def blob(shape: tuple[int, int, int], middle: tuple[float, float, float]) -> np.ndarray:
    """Of a width that thick slices show, on some brightness."""
    at = np.indices(shape).astype(float)
    widths = [6.0 if n > 20 else 2.0 for n in shape]
    far = sum(((a - m) / w) ** 2 for a, m, w in zip(at, middle, widths, strict=True))
    return (10 + 200 * np.exp(-far)).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "axis", "mm", "shape", "k"),
    [
        ((0.9, 0.8, 5.0), 2, None, (54, 40, 75), 7),  # the other axis of the plane, too
        ((0.8, 0.8, 3.4), 2, None, (48, 40, 51), 5),  # 4.25: the next ending
        ((0.8, 0.8, 2.4), 2, None, (48, 40, 36), 3),  # whole
        ((0.8, 0.8, 4.0), 2, 1.6, (24, 20, 30), 3),  # coarser than the plane: 2.5
        ((0.8, 0.8, 4.0), 2, 0.5, (77, 64, 96), 8),  # finer than the plane
        ((4.0, 0.8, 0.8), 0, None, (60, 48, 40), 5),
        ((0.8, 0.8, 0.98), 2, None, (48, 40, 15), 2),  # 1.22, the least
    ],
)
def test_the_grid_keeps_the_field_of_view(
    size: tuple[float, float, float], axis: int, mm: float | None, shape: tuple[int, int, int], k: int
) -> None:
    counts = [48, 40]
    counts.insert(axis, 12)
    scan = Grid(tuple(counts), oblique(size))
    made = isotropic.wanted(scan, axis, mm)
    assert made.shape == shape
    ends = (grid.corners(g.shape, g.affine) for g in (scan, made))
    np.testing.assert_allclose(*ends, atol=1e-4)
    goal = mm or min(size)
    assert np.abs(grid.spacing(made.affine) / goal - 1).max() < 0.05
    assert isotropic.factor(scan, made, axis) == k


@pytest.mark.parametrize(
    ("shape", "size", "mm", "said"),
    [
        ((48, 40, 36), (1.0, 1.0, 1.1), None, "no thick axis"),
        ((48, 40, 36), (1.0, 1.0, 4.0), 4.0, r"--isotropic 4: .* become thinner at 3\.33 mm or less"),
        ((48, 40, 12), (0.5, 0.5, 10.0), None, r"give --isotropic 1\.2 or more"),
        ((48, 40, 12), (0.5, 2.0, 5.0), None, "expected one thick axis, .* leave --plane out"),
        ((48, 40, 3), (1.0, 1.0, 5.0), None, "expected 4 slices or more, got 3"),
    ],
)
def test_scans_without_one_thick_axis(
    shape: tuple[int, int, int], size: tuple[float, float, float], mm: float | None, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        isotropic.wanted(Grid(shape, oblique(size)), 2, mm)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_blob_keeps_its_place(axis: int) -> None:
    """In millimetres, whatever axis is thick, along with the means of the slices."""
    counts, size, middle = [44, 40], [0.9, 0.8], [20.3, 18.6]
    for values, one in ((counts, 11), (size, 4.1), (middle, 5.2)):
        values.insert(axis, one)
    data, affine = blob(tuple(counts), tuple(middle)), oblique(tuple(size))
    volume = Volume(data, affine)
    final = isotropic.wanted(volume.grid, axis, None)
    k = isotropic.factor(volume.grid, final, axis)
    thin = isotropic.Thin(REPEATED, k, Profile(), "assumed", final, None)
    made, _, _ = thin(volume, axis, 0.0, None, None, lambda _: None, np.empty)
    assert made.data.shape == final.shape
    places = [nib.affines.apply_affine(v.affine, center_of_mass(v.data - 10)) for v in (volume, made)]
    np.testing.assert_allclose(*places, atol=0.1)


def test_thin_slices_are_the_mean_of_both_planes() -> None:
    """Seen through a network that knows which plane it is given by its shape; all of a stack is done."""
    seen: list[tuple[int, ...]] = []

    def by_shape(k: int) -> Running:
        def predict(low: np.ndarray) -> np.ndarray:
            seen.append(low.shape)
            columns = low.shape[3]
            return np.full((len(low), k * low.shape[2], columns), 0.25 if columns == 40 else 0.75, np.float32)

        return Running(predict, "none", "f32")

    stack = blob((9, 40, 33), (4, 20, 16))
    counted: list[int] = []
    made = isotropic.thinner(stack, Across("", "", by_shape), 3, Profile(), progress=counted.append)
    assert made.shape == (27, 40, 33)
    assert sum(counted) == 9
    norm = Normalisation.of(stack)
    np.testing.assert_allclose(made, norm.offset + 0.5 * norm.gain, rtol=1e-5)
    assert {shape[1:] for shape in seen} == {(7, 9, 40), (7, 9, 33)}


def test_neighbours_and_what_is_told() -> None:
    stack = blob((8, 40, 36), (4, 20, 18))
    given: list[np.ndarray] = []

    def keep(k: int) -> Running:
        return Running(lambda low: given.append(low) or low[:, 1].repeat(k, 1), "none", "f32")

    isotropic.thinner(stack, Across("", "", keep), 4, Profile("gaussian", 0.8), sigma=2.0)
    norm = Normalisation.of(stack)
    planes = np.moveaxis(norm.apply(stack), 2, 0)
    low = given[0]
    np.testing.assert_array_equal(low[:, 1], planes)
    np.testing.assert_array_equal(low[1:, 0], planes[:-1])
    np.testing.assert_array_equal(low[0, 0], planes[0])
    np.testing.assert_array_equal(low[:-1, 2], planes[1:])
    expected = [np.sqrt(20 * 2.0 / norm.gain), 0.8, 1.0, 0.5]
    np.testing.assert_allclose(low[:, 3:, 2, 3], np.tile(expected, (len(low), 1)), rtol=1e-5)


def test_background_and_signs_are_kept() -> None:
    """A constant background stays, voxels are negative only between slices that are."""
    stack = blob((8, 40, 36), (4, 20, 18))
    stack[:, :, :9] = 0

    def noisy(k: int) -> Running:
        rng = np.random.default_rng(0)
        return Running(
            lambda low: rng.normal(0, 1, (len(low), k * low.shape[2], low.shape[3])), "none", "f32"
        )

    made = isotropic.thinner(stack, Across("", "", noisy), 3, Profile(), empty=0.0)
    assert not made[:, :, :9].any()
    assert made.min() == 0
    stack[3] -= 400
    made = isotropic.thinner(stack, Across("", "", noisy), 3, Profile())
    below = (made < 0).any((1, 2))
    assert below[8:13].any()
    assert not below[:7].any()
    flat = isotropic.thinner(np.full((5, 8, 9), 7.0, np.float32), REPEATED, 2, Profile())
    np.testing.assert_array_equal(flat, np.full((10, 8, 9), 7, np.float32))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(scanner=Scanner(slice_thickness=3.0)), "only --isotropic uses it"),
        (Options(scanner=Scanner(slice_profile="rect")), "only --isotropic uses it"),
        (Options(adapt=30.0), "--adapt: only --isotropic uses it"),
        (Options(adapt=0.0, target=THIN), "--adapt 0: must be above 0"),
        (Options("bicubic", target=THIN), "only seran estimates"),
        (Options(ensemble=True, target=THIN), "--isotropic has none"),
        (
            Options(scanner=Scanner("bicubic"), target=THIN),
            "for scans as scanners give them",
        ),
        (
            Options(scanner=Scanner(slice_thickness=30.0), target=THIN),
            "right --slice-thickness",
        ),
        (
            Options(scanner=Scanner(acquired=(0.5, 0.5)), target=THIN),
            "--acquired: has no effect here, because the pixels do not become finer; leave it out",
        ),
        (
            Options(scanner=Scanner(window="hamming:0.5"), target=Target(isotropic=1.0)),
            "--window: has no effect here",
        ),
    ],
)
def test_options_that_do_not_go_together(options: Options, said: str) -> None:
    volume = Volume(blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4)))
    with pytest.raises(BadInput, match=said):
        job.Steps(volume, options, F32)


def test_slices_across_thick_ones_are_refused_unless_forced() -> None:
    scan = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    with pytest.raises(BadInput, match="give --isotropic for thin slices, or --force-plane"):
        seran.upscale(scan, plane="sagittal", engine=F32)
    assert seran.upscale(scan, plane="sagittal", force_plane=True, engine=F32).data.shape == (40, 72, 16)
    assert seran.upscale(scan, plane="sagittal", method="bicubic").data.shape == (40, 72, 16)


def test_like_says_what_it_interpolates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, affine = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    nib.Nifti1Image(data, affine).to_filename(tmp_path / "in.nii")
    thin = isotropic.wanted(Grid(data.shape, affine), 2, None)
    nib.Nifti1Image(np.zeros(thin.shape, np.float32), thin.affine).to_filename(tmp_path / "grid.nii")
    words = [
        "upscale",
        str(tmp_path / "in.nii"),
        str(tmp_path / "out.nii"),
        "--like",
        str(tmp_path / "grid.nii"),
    ]
    assert cli.run(words) == 0
    assert "4.5 times as many slices by interpolation alone: thick ones stay thick" in capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["InterpolatedAcross"] == pytest.approx(4.5, abs=0.01)
    [check] = [c for c in record["Checks"] if c["name"] == "resolution"]
    assert check["verdict"] == "WARN"
    assert "by interpolation: they stay as thick" in check["text"]


def test_thickness_is_known_by_what_says_it(tmp_path: Path) -> None:
    """The option, else a DICOM header, else the JSON beside a file, else the distance of the slices."""
    assert Scanner(slice_thickness=3.0).profile(4.0, 3.5, 3.2) == (Profile("slr", 0.75), "stated")
    assert Scanner(slice_profile="rect").profile(4.0, 3.0, 3.5) == (Profile("rect", 0.75), "header")
    assert Scanner().profile(4.0, None, 3.0) == (Profile("slr", 0.75), "json")
    assert Scanner().profile(4.0, None) == (Profile("slr", 1.0), "assumed")
    with pytest.raises(BadInput, match="the header's SliceThickness, 1 mm: slices 4 mm apart"):
        Scanner().profile(4.0, 1.0)
    with pytest.raises(BadInput, match="SliceThickness in the JSON beside it, 1 mm"):
        Scanner().profile(4.0, None, 1.0)
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"")
    assert slice_thickness(scan) is None
    (tmp_path / "scan.json").write_text('{"SliceThickness": 3.6}')
    assert slice_thickness(scan) == 3.6
    (tmp_path / "scan.json").write_text('{"SliceThickness": "thick"}')
    with pytest.raises(BadInput, match="give --slice-thickness"):
        slice_thickness(scan)
    assert profiles.profile("gaussian:0.9") == Profile("gaussian", 0.9)
    with pytest.raises(ValueError, match="expected one of rect, gaussian, slr, got sinc"):
        profiles.profile("sinc:1")


def test_the_value_may_be_left_out() -> None:
    """``--isotropic`` before other words, before an option, at the end; or with MM."""
    from seran.apps import arguments

    for words in (
        ["--isotropic", "IN", "OUT"],
        ["IN", "OUT", "--isotropic"],
        ["IN", "--isotropic", "-q", "OUT"],
    ):
        made = list(arguments._with_values(words, {"--isotropic"}))
        assert made[made.index("--isotropic") + 1] == "auto"
        assert [word for word in made if word != "auto"] == words
    for word in ("0.8", "0", "auto", "1mm", "-1", "1,5", "inf", "None"):
        words = ["--isotropic", word, "IN"]
        assert list(arguments._with_values(words, {"--isotropic"})) == words
    assert list(arguments._with_values(["--isotropic=0.8", "IN"], {"--isotropic"})) == [
        "--isotropic=0.8",
        "IN",
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", "--isotropic 0: must be above 0"),
        ("inf", "must be above 0"),
        ("1mm", "--isotropic 1mm: expected a number"),
    ],
)
def test_a_value_that_is_none(
    tmp_path: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is taken for the finest spacing but what says so."""
    nib.Nifti1Image(blob((20, 18, 8), (9, 9, 4)), oblique((1, 1, 4))).to_filename(tmp_path / "in.nii")
    assert cli.run(["upscale", "--isotropic", word, str(tmp_path / "in.nii"), str(tmp_path / "out.nii")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--isotropic", "--adapt", "abc"), "--adapt abc: expected a number"),
        (("--isotropic=auto", "--threads", "x"), "--threads x: expected a whole number"),
        (("--isotropic", "2", "3"), "--isotropic 2: is this its value, or the file or folder of that name?"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Not the option whose value is left out; a folder is not taken for a spacing."""
    (tmp_path / "2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.run(["upscale", "in.nii", "out.nii", *words]) == 2
    assert said in capsys.readouterr().err


def test_noise_that_the_network_took_is_no_residual() -> None:
    """Whether the pixels stay or become coarser; what is lost besides is told."""
    rng = np.random.default_rng(0)
    clean, affine = np.repeat(blob((40, 36, 8), (20, 18, 4))[:, :, 4:5], 8, 2), oblique((0.9, 0.9, 4))
    scan = Volume(np.abs(clean + rng.normal(0, 8, clean.shape)).astype(np.float32), affine)
    for mm in (0.9, 1.8):
        final = isotropic.wanted(scan.grid, 2, mm)
        made = resample.onto(Volume(clean, affine), final)
        acquired = Acquired((1, 1), acquisition.window("none"), 8 / 210, None, False, False)
        how = Provenance((1, 1), 2, "td", True, True, acquired, Profile())
        for result, verdict in ((made, "PASS"), (made.on(np.roll(made.data, 2, 0), made.affine), "FAIL")):
            residual = {c.name: c for c in checks.all_of(scan, result, how)}["residual"]
            assert residual.verdict == verdict, residual.text


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("distance", [4.2, 4.5])  # resampled from 5 times the pixels, and not
def test_thin_slices_are_consistent_on_their_own_grid(axis: int, distance: float) -> None:
    """What resampling takes away leaves thick slices by no more than their noise, either."""
    rng, sd = np.random.default_rng(0), 0.2
    shape, size = np.insert([40, 36], axis, 12), np.insert([0.9, 0.9], axis, distance)
    data = 100 + 60 * np.sin(np.indices(tuple(shape)).sum(0) / 0.7)  # each slice is unlike the next
    scan = Volume((data + rng.normal(0, sd, data.shape)).astype(np.float32), oblique(tuple(size)))
    final = isotropic.wanted(scan.grid, axis, None)
    thin = isotropic.Thin(REPEATED, 5, Profile(), "assumed", final, None)
    made, changed, _ = thin(scan, axis, sd, None, sd, lambda _: None, np.empty)
    assert changed == 12
    part = sd / Normalisation.of(scan.data).gain
    acquired = Acquired((1, 1), acquisition.window("none"), part, None, False, False)
    how = Provenance((1, 1), axis, "td", True, True, acquired, Profile())
    found = {c.name: c for c in checks.all_of(scan, made, how)}["consistency"]
    assert found.value == pytest.approx(1, abs=0.05)


def test_the_library_takes_no_zero() -> None:
    scan = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    with pytest.raises(BadInput, match="--isotropic 0: must be above 0"):
        seran.upscale(scan, isotropic=0)
    with pytest.raises(BadInput, match="--scale and --isotropic: give only one"):
        seran.load(scale=2, isotropic=True)


def test_coarser_pixels_are_compared_as_such() -> None:
    """The detail that a coarser plane gives up is not missing; what else differs is."""
    rng = np.random.default_rng(0)
    data, affine = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    data[:] = data[:, :, 4:5] + rng.uniform(0, 60, (40, 36, 1))  # detail of one pixel
    scan = Volume(data, affine)
    final = isotropic.wanted(scan.grid, 2, 1.8)
    thin = isotropic.Thin(REPEATED, 3, Profile(), "assumed", final, None)
    plane = resample.onto(scan, grid.with_counts(scan.grid, (20, 18, 8)))
    made, _, _ = thin(plane, 2, 0.0, None, None, lambda _: None, np.empty)
    acquired = Acquired((1, 1), acquisition.window("none"), None, None, False, False)
    how = Provenance((1, 1), 2, "td", True, True, acquired, Profile())
    residual = {c.name: c for c in checks.all_of(scan, made, how)}["residual"]
    assert residual.verdict == "PASS", residual.text
    worse = made.on(np.roll(made.data, 1, 0), made.affine)
    assert {c.name: c for c in checks.all_of(scan, worse, how)}["residual"].verdict == "FAIL"
    fine = Grid((80, 72, 8), grid.rescale(affine, (2, 2, 1), "corner"))
    assert [*meet(scan.grid, fine)] == [*meet(fine, scan.grid)] == [40, 36, 8]


@pytest.mark.parametrize(
    ("size", "mm"),
    [((1.0, 1.0, 4.5), 3.0), ((1.0, 1.0, 4.5), 1.4), ((1.0, 1.3, 4.5), 1.15), ((1.0, 1.0, 4.5), 1.02)],
    ids=["much coarser", "coarser", "coarser along one axis, finer along the other", "hardly coarser"],
)
def test_a_resampled_plane_is_held_against_the_scan_in_its_own_pixels(
    size: tuple[float, float, float], mm: float
) -> None:
    """Whose noise is the less, the more pixels are averaged; the network is told that, too."""
    rng, told, sd = np.random.default_rng(0), [], 3.0
    x, y, z = np.indices((96, 90, 12))
    clean = Volume((200 + 60 * np.sin(x / 3 + y / 4 + 2.5 * z)).astype(np.float32), oblique(size))
    data = clean.data + rng.normal(0, sd, clean.data.shape).astype(np.float32)
    scan = clean.on(data, clean.affine)
    noise = Scanner(noise=sd / Normalisation.of(data).gain)
    steps = job.Steps(scan, Options(target=Target(isotropic=mm), scanner=noise), F32)
    assert steps.across is not None
    network = Across("none.onnx", "", lambda k: Running(lambda x: _heard(x, k, told), "none", "f32"))
    steps.across = replace(steps.across, network=network)
    made, _, stated = steps(scan)
    plane = grid.with_counts(scan.grid, (*steps.final.shape[:2], 12))
    kept, rest = (resample.onto(one, plane).data for one in (scan, clean))
    left = float((kept - rest).std())
    assert left < 0.9 * sd
    assert told[0] == pytest.approx(np.sqrt(20 * left / Normalisation.of(kept).gain), rel=0.03)
    found = {c.name: c for c in stated.checks}["consistency"]
    assert stated.projected == 12
    assert found.verdict == "PASS", found.text
    worse = made.on(made.data + rng.normal(0, 8 * left, made.data.shape).astype(np.float32), made.affine)
    again = {c.name: c for c in checks.all_of(scan, worse, stated.provenance)}["consistency"]
    assert again.verdict == "FAIL", again.text


def _heard(x: np.ndarray, k: int, told: list[float]) -> np.ndarray:
    """What `cubic` makes, and nothing of the slice's noise; notes how much of it there is said to be."""
    told.append(float(x[0, 3, 0, 0]))
    return np.full((len(x), k * x.shape[2], x.shape[3]), x[:, 1].mean(), np.float32)


def test_half_widths_are_refused_where_the_plane_becomes_coarser() -> None:
    scan = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    with pytest.raises(BadInput, match=r"--uncertainty: .* across slices whose pixels stay as they are"):
        seran.upscale(scan, isotropic=1.8, uncertainty=True)


@pytest.mark.parametrize(
    ("thickness", "verdict"), [(1.6, "WARN"), (2.4, "PASS"), (4.8, "PASS"), (5.6, "WARN")]
)
def test_thickness_that_the_network_does_not_know(thickness: float, verdict: str) -> None:
    scan = blob((40, 36, 8), (20, 18, 4)), oblique((0.9, 0.9, 4))
    made = seran.upscale(scan, isotropic=1.5, scanner=Scanner(slice_thickness=thickness))
    assert made.record is not None
    resolution = {c.name: c for c in made.record.checks}["resolution"]
    assert (resolution.verdict, "the network knows" in resolution.text) == (verdict, verdict == "WARN")
    assert made.record.degradation == "td"
    assert made.record.trained_spacings is not None


def thick(folder: Path, shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """A part of a real thick scan: voxels and affine."""
    image = nib.load(shared / "val/ds000011_sub-10_inplaneT2.nii.gz")  # type: ignore[attr-defined]
    data = np.asarray(image.dataobj)[30:90, 24:96, 10:18]
    affine = image.affine @ nib.affines.from_matvec(np.eye(3), [30, 24, 10])
    folder.mkdir(exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(folder / "in.nii.gz")
    return data, affine


@pytest.mark.slow
def test_the_command(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, its record, and the same in the library; at the finest spacing and finer than that."""
    data, affine = thick(tmp_path, shared)
    (tmp_path / "in.json").write_text('{"SliceThickness": 4.5}')
    source, out = tmp_path / "in.nii.gz", tmp_path / "out.nii.gz"
    assert cli.run(["upscale", str(source), str(out), "--isotropic"]) == 0
    said = capsys.readouterr().out
    assert (
        "3.25 thin slices estimated for each thick one, resampled from 4 "
        "(4.5 mm thick, by the JSON beside it; profile slr)" in said
    )
    record, made = json.loads((tmp_path / "out.json").read_text()), nib.load(out)  # type: ignore[attr-defined]
    assert made.shape == (60, 72, 26)
    ends = (grid.corners(shape, a) for shape, a in ((data.shape, affine), (made.shape, made.affine)))
    np.testing.assert_allclose(*ends, atol=1e-4)
    assert (record["SliceFactor"], record["SliceProfile"], record["SliceThicknessBy"]) == (
        4,
        "slr:0.9",
        "json",
    )
    assert record["SliceThickness"] == record["SpacingBetweenSlices"] == pytest.approx(40 / 26, abs=1e-5)
    assert record["GridAnchor"] == "corner"
    verdicts = {check["name"]: check["verdict"] for check in record["Checks"]}
    assert verdicts["geometry"] == verdicts["residual"] == verdicts["overshoot"] == "PASS"
    assert "FAIL" not in verdicts.values()
    model = seran.load(isotropic=True)
    assert repr(model) == "Model(thick slices, seran-isotropic.onnx)"
    for same in (seran.upscale(source, isotropic=True), model(seran.read(source))):
        np.testing.assert_array_equal(same.data, np.asarray(made.dataobj))
        assert same.record is not None
        assert same.record.slice_thickness_by == "json"
    finer = seran.upscale((data, affine), isotropic=0.8)
    assert finer.data.shape == (117, 141, 50)
    assert finer.record is not None
    assert (finer.record.weights, finer.record.slice_weights) == ("seran-native.onnx", "seran-isotropic.onnx")


@pytest.mark.slow
def test_the_network_is_tuned_on_the_scan(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is told and stated; where it helps, thin slices are others."""
    monkeypatch.setattr("seran.adapt.adapted", functools.partial(adapt.adapted, steps=4))  # in any time
    thick(tmp_path, shared)
    source, out = str(tmp_path / "in.nii.gz"), tmp_path / "out.nii.gz"
    assert cli.run(["upscale", source, str(out), "--isotropic", "--adapt", "9"]) == 0
    said, record = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    why = record["AdaptKept"]
    assert (f"; not tuned on the scan: {why}" if why else "; 4 steps of tuning on its own slices: ") in said
    assert record["AdaptSteps"] == 4
    plain = seran.upscale(source, isotropic=True)
    assert plain.record is not None
    assert (plain.record.adapt_steps, plain.record.adapt_gain) == (0, None)
    assert (record["AdaptKept"] == "") == bool((plain.data != seran.read(out).data).any())
    dark = np.stack([np.zeros((60, 72, 8)), seran.read(source).data], 3)
    nib.Nifti1Image(dark, seran.read(source).affine).to_filename(tmp_path / "two.nii")
    words = ["upscale", str(tmp_path / "two.nii"), str(out), "--isotropic", "--adapt", "9", "--force"]
    assert cli.run(words) == 0  # the first volume teaches nothing
    assert json.loads((tmp_path / "out.json").read_text())["AdaptSteps"] == 4
    monkeypatch.undo()
    assert cli.run(["upscale", source, str(out), "--isotropic", "--adapt", "0.01", "--force"]) == 0
    assert "; not tuned on the scan: no step of training fits into the seconds" in capsys.readouterr().out


@pytest.mark.slow
def test_a_derived_series_and_a_data_set(shared: Path, tmp_path: Path) -> None:
    """DICOM has the new positions and thickness, BIDS the labels and the metadata."""
    data, affine = thick(tmp_path, shared)
    series(tmp_path / "dicom", data.astype(np.int16), affine, SliceThickness=4.5, Modality="MR")
    assert cli.run(["upscale", str(tmp_path / "dicom"), str(tmp_path / "thin"), "--isotropic"]) == 0
    made = seran.read(tmp_path / "thin")
    assert made.data.shape == (60, 72, 26)
    ends = [grid.corners(shape, a) for shape, a in ((data.shape, affine), (made.data.shape, made.affine))]
    assert checks.apart(*ends) < 1e-3
    slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "thin").glob("*.dcm"))]
    for name in ("SliceThickness", "SpacingBetweenSlices"):
        np.testing.assert_allclose([float(one[name].value) for one in slices], 40 / 26, atol=1e-4)
    root = tmp_path / "raw"
    (root / "sub-01" / "anat").mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / "T2w.json").write_text('{"SliceThickness": 4.5, "SpacingBetweenSlices": 5.0, "EchoTime": 0.1}')
    (tmp_path / "in.nii.gz").rename(root / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    assert cli.run(["bids", str(root), str(tmp_path / "out"), "participant", "--isotropic"]) == 0
    [image] = (tmp_path / "out").rglob("*_T2w.nii.gz")
    assert image.name == "sub-01_res-iso_desc-seran_T2w.nii.gz"
    record = json.loads(image.with_name(image.name.replace(".nii.gz", ".json")).read_text())
    assert record["SliceProfile"] == "slr:0.9"
    assert record["SliceThickness"] == record["SpacingBetweenSlices"] == pytest.approx(40 / 26, abs=1e-5)
    assert record["EchoTime"] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("k", "least"), [(3, 2.3), (5, 1.7)])
def test_the_network_beats_splines(shared: Path, k: int, least: float) -> None:
    """On the validation split, in dB, with 1 % noise; told another profile than is true."""
    image = nib.load(shared / "val/ds002748_sub-55_T1w.nii.gz")  # type: ignore[attr-defined]
    x = np.moveaxis(np.asarray(image.dataobj, np.float32)[70:110, 40:220, 90:150], 1, 0)
    x = x[: len(x) // k * k] / np.percentile(x, 99.9)
    clean = np.tensordot(profiles.selection(len(x), k, Profile("gaussian", 0.9)), x, 1)
    a, b = 0.01 * np.random.default_rng(0).standard_normal((2, *clean.shape))
    low = np.hypot(clean + a, b).astype(np.float32)
    made = isotropic.thinner(low, methods.across("seran"), k, Profile("slr", 0.9), 0.01)
    spline = zoom(low, (k, 1, 1), order=3, mode="nearest", grid_mode=True)
    errors = [float(np.square(np.maximum(y, 0) - x).mean()) for y in (spline, made)]
    assert 10 * np.log10(errors[0] / errors[1]) > least
