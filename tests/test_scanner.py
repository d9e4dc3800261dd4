"""Native weights on a scan: what is known of it is undone, and everything lies where it did."""

from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pytest
from scipy.ndimage import center_of_mass, gaussian_filter

import seran
from seran import cli, kspace, measure, methods, native, weights
from seran.acquisition import NONE, Acquisition, Window, window
from seran.engines import Engine, Running
from seran.errors import BadInput
from seran.job import record
from seran.job import steps as job
from seran.job.options import Options, Scanner
from seran.quality.measures import measures
from seran.sharpen import Method, Normalisation, sharpen
from seran.volume import Volume
from tests.conftest import oblique, phantom, taken

F32 = Engine(precision="f32")
PATH = weights.shipped()["seran-native"]


def smooth(shape: tuple[int, int, int] = (50, 62, 3)) -> np.ndarray:
    """Slices last, with edges as soft as a scanner makes them."""
    return gaussian_filter(phantom(shape), (1, 1, 0)).astype(np.float32) + 20


def test_a_file_holds_four_networks() -> None:
    """Each is an ONNX model of its own, for any runtime, with the names of a network of one scale."""
    held = weights.read(PATH)
    assert weights.scales(held) == (1, 2, 3, 4)
    low = np.random.default_rng(0).random((2, 5, 17, 22), dtype=np.float32)
    sizes = []
    for scale in weights.scales(held):
        one = weights.head(held, scale)
        assert one.card.scale == scale
        assert {"head.weight", "tail.weight"} <= set(weights.tensors(one.data))
        assert ("up.0.weight" in weights.tensors(one.data)) is (scale > 1)
        [high] = onnxruntime.InferenceSession(one.data).run(None, {"low": low})
        assert high.shape == (2, 1, scale * 17, scale * 22)
        sizes.append(len(one.data))
    assert max(sizes) < 0.95 * len(held.data)
    with pytest.raises(BadInput, match=r"--scale 5: .*seran-native.onnx is for x1, x2, x3, x4"):
        weights.head(held, 5)
    plain = weights.read(weights.shipped()["seran-x2-bd"])
    assert weights.head(plain, 2) == plain


@pytest.mark.parametrize("words", ["none", "tukey:0.4", "hamming:0.46:elliptical", "fermi:0.9:0.06"])
def test_windows_in_words(words: str) -> None:
    assert str(window(words)) == words


def test_which_head() -> None:
    """The next one above what is wanted of either axis; a little may be missing, and is filled with zeros."""
    assert native.factor((40, 40), (40, 40), 1) == 1
    assert native.factor((20, 40), (40, 40), 1) == 2
    assert native.factor((20, 30), (40, 60), 2) == 4
    assert native.factor((26, 40), (40, 40), 2) == 3
    assert native.factor((25, 40), (40, 40), 2) == 4
    assert native.factor((39, 40), (40, 40), 2) == 2
    assert native.factor((10, 40), (40, 40), 4) == 4


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_a_blob_keeps_its_place(scale: int, plane: str) -> None:
    """In millimetres, whatever was acquired: the centre of voxel 0 stays."""
    shape = (40, 44, 3) if plane == "axial" else (40, 3, 44)
    axis = shape.index(3)
    grid = np.indices(shape).astype(float)
    middle = np.array([17.3, 23.6, 1.0])
    where = middle if axis == 2 else middle[[0, 2, 1]]
    far = sum(((g - w) / (5 if n > 3 else 2)) ** 2 for g, w, n in zip(grid, where, shape, strict=True))
    data = (10 + 200 * np.exp(-far)).astype(np.float32)
    affine = oblique((0.9, 0.8, 3.3) if axis == 2 else (0.9, 3.3, 0.8))
    for acquired in ((1.0, 1.0), (0.6, 0.75)):
        known = Scanner(acquired=acquired, window="none", noise="off")
        made = seran.upscale((data, affine), scale=scale, plane=plane, engine=F32, scanner=known)
        assert made.record is not None
        assert made.data.shape == tuple(n if n == 3 else scale * n for n in shape)
        assert made.record.kspace_support == acquired
        place = [
            nib.affines.apply_affine(a, center_of_mass(d - 10))
            for d, a in ((data, affine), (made.data, made.affine))
        ]
        np.testing.assert_allclose(place[0], place[1], atol=0.12)


@pytest.mark.slow
def test_what_is_known_is_undone() -> None:
    """A filtered, filled and noisy image of a slice comes nearer to the slice, on its own grid."""
    truth = np.moveaxis(smooth((64, 72, 4)), 2, 0)
    given = Acquisition((40, 45), Window("hamming", 0.46), (64, 72))(truth, 4.0, np.random.default_rng(0))
    scan = np.moveaxis(given, 0, 2), oblique()
    known = Scanner(
        acquired=(40 / 64, 45 / 72),
        window="hamming:0.46",
        noise=4.0 / float(np.percentile(given, 99.9)),
    )
    made = seran.upscale(scan, scale=1, engine=F32, scanner=known)
    errors = [float(np.square(np.moveaxis(d, 2, 0) - truth).mean()) for d in (scan[0], made.data)]
    assert 10 * np.log10(errors[0] / errors[1]) > 2
    nothing = Scanner(acquired=(1, 1), window="none", noise="off")
    blind = seran.upscale(scan, scale=1, scanner=nothing, engine=F32)
    assert float(np.square(np.moveaxis(blind.data, 2, 0) - truth).mean()) > errors[1]
    assert made.record is not None
    assert made.record.window == "hamming:0.46"
    assert made.record.noise_by == "stated"
    assert made.record.known()["filter"].startswith("a filter (hamming:0.46) leaves 8%")


@pytest.mark.slow
def test_more_noise_is_told_and_more_is_taken() -> None:
    scan = smooth() + np.random.default_rng(0).normal(0, 10, (50, 62, 3)).astype(np.float32), oblique()
    rough = []
    for noise in ("off", 0.02, 0.05):
        stated = Scanner(noise=noise, acquired=(1, 1), window="none")
        made = seran.upscale(scan, scanner=stated, engine=F32)
        rough.append(float(np.abs(np.diff(made.data[:12, :12], axis=0)).mean()))
    assert rough[0] > rough[1] > rough[2]


@pytest.mark.slow
def test_a_constant_background_stays_and_nothing_rings_beside_it() -> None:
    data = smooth((60, 60, 3)) + 100
    y, x = np.indices((60, 60)) - 30
    data[np.hypot(y, x) > 22] = 0
    scan = data, oblique()
    for scale in (1, 2, 3):
        made = seran.upscale(scan, scale=scale, scanner=Scanner(noise="off"), engine=F32)
        assert made.record is not None
        assert made.record.background == 0
        coarse = np.moveaxis(data, 2, 0)[1] == 0
        fine = native._all_around(coarse, (60 * scale, 60 * scale))
        assert fine[::scale, ::scale].tolist() == coarse.tolist()
        assert not made.data[:, :, 1][fine].any()
        assert (made.data[:, :, 1][~fine] > 0).mean() > 0.95
        check = next(c for c in made.record.checks if c.name == "overshoot")
        assert check.text.endswith("beside the constant background 0.00%")
    free = seran.upscale(scan, scanner=Scanner(noise="off", background="off"), engine=F32)
    assert np.moveaxis(free.data, 2, 0)[native.nearest(np.moveaxis(data, 2, 0) == 0, (120, 120))].any()
    other = seran.upscale((data - 7, oblique()), scanner=Scanner(noise="off", background=-7), engine=F32)
    assert other.data.min() == pytest.approx(-7, abs=1e-3)


@pytest.mark.slow
def test_symmetries_are_averaged() -> None:
    scan = smooth(), oblique()
    stated = Scanner(noise=0.01, acquired=(0.8, 0.8), window="none")
    plain = seran.upscale(scan, scanner=stated, engine=F32)
    mean = seran.upscale(scan, scanner=stated, ensemble=True, engine=F32)
    assert mean.record is not None
    assert mean.record.method == "seran+"
    assert 0 < np.abs(mean.data - plain.data).mean() < 0.01 * np.ptp(plain.data)


def test_an_unwindowed_full_scan_is_not_touched_before_the_network() -> None:
    low = np.moveaxis(smooth(), 2, 0)
    known = measure.Measured((1.0, 1.0), NONE, 0.0, "unknown", None)
    assert native.acquired(known, (50, 62)) == (50, 62)
    np.testing.assert_array_equal(kspace.regridded(low, (50, 62)), low)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--window", "hann"), "--window hann: expected auto, none, tukey:A"),
        (("--window", "hamming:0.7"), "--window hamming:0.7: expected"),
        (("--window", "tukey:1e-300"), "tukey:A (from 0.001 to 1), hamming:A (0 to 0.5) or fermi:A:B (0 to"),
        (("--window", "fermi:0.9:1e-320"), "--window fermi:0.9:1e-320: expected"),
        (("--noise", "loud"), "--noise loud: expected auto, off or a part of the range"),
        (("--noise", "nan"), "--noise nan: expected"),
        (("--acquired", "0.1", "1"), "--acquired 0.1 1: must be from 0.25 to 1"),
        (("--background", "inf"), "--background inf: expected"),
        (("--acquisition", "magic"), "--acquisition magic: expected auto, bicubic or truncation"),
        (
            ("--acquisition", "bicubic", "--noise", "off"),
            "--noise: only native weights use it, the weights seran-x2-bd.onnx do not; leave it out",
        ),
        (
            ("--method", "bicubic", "--window", "none"),
            "--window: only native weights use it, bicubic does not; leave it out",
        ),
        (
            ("--weights", "seran-x2-td", "--acquisition", "bicubic"),
            "--acquisition bicubic: the weights seran-x2-td.onnx are for truncated k-space;",
        ),
        (
            ("--weights", "seran-native", "--acquisition", "bicubic"),
            "the weights seran-native.onnx are for scans as scanners give them;",
        ),
        (("--method", "zerofill", "--acquisition", "bicubic"), "zerofill is for truncated k-space;"),
        (("--background", "777"), "--background 777: no region of the scan has this value;"),
        (("--scale", "1", "--acquisition", "bicubic"), "--scale 1: keeps the grid, which only native"),
        (("--precision", "int8"), "not calibrated for int8"),
    ],
)
def test_what_does_not_fit_is_refused(
    scan: Path, tmp_path: Path, options: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["upscale", str(scan), str(tmp_path / "out.nii"), *options]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out.nii").exists()


@pytest.mark.slow
def test_the_record_says_when_seran_made_the_scan(scan: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.nii", tmp_path / "b.nii"
    assert cli.run(["upscale", str(scan), str(first), "--method", "bicubic"]) == 0
    assert cli.run(["upscale", str(first), str(second), "--no-label-check"]) == 0
    found = record.read(second)
    assert found is not None
    assert found.sharpened
    assert next(c for c in found.checks if c.name == "signal").verdict == "WARN"
    assert cli.run(["info", str(first)]) == 0


def test_what_is_stated_needs_no_measuring() -> None:
    stack = np.moveaxis(smooth(), 2, 0)
    stack[:, :6, :7] = 5
    gain = Normalisation.of(stack).gain
    known = Scanner(acquired=(0.5, 0.75), window="tukey:0.4", noise="0.03", background="5")
    stated = known.known(stack, gain)
    assert stated.fraction == (0.5, 0.75)
    assert stated.window == Window("tukey", 0.4)
    assert stated.sigma == pytest.approx(0.03 * np.percentile(stack, 99.9), rel=0.02)
    assert stated.background == 5
    assert Scanner(noise="off", background="off").known(stack, gain).sigma == 0
    assert Scanner(background="5").known(stack + 1, gain).background is None  # of a series, another volume
    with pytest.raises(BadInput, match="--background 5: no region"):
        known.refuse_background([stack + 1])
    known.refuse_background([stack + 1, stack])


def test_noise_is_measured_as_what_is_stated_of_the_filter_leaves_it() -> None:
    truth = np.moveaxis(phantom((132, 160, 6)), 2, 0)
    stack = Acquisition((132, 160), Window("hamming", 0.46))(truth, 6.0, np.random.default_rng(0))
    found = Scanner(window="hamming:0.46", acquired=(1, 1)).known(stack, 1.0)
    assert found.sigma == pytest.approx(6.0, rel=0.1)
    assert Scanner(window="none", acquired=(1, 1)).known(stack, 1.0).sigma < 3.0


@pytest.mark.slow
def test_each_volume_of_a_series_is_what_it_is_alone(unlike: Path, tmp_path: Path) -> None:
    """Whatever the first one is: its noise and its background are its own, and the record says so."""
    stated = ["--acquired", "1", "1", "--window", "none", "--precision", "f32"]
    out, one = tmp_path / "out.nii.gz", tmp_path / "one.nii.gz"
    assert cli.run(["upscale", str(unlike), str(out), *stated]) == 0
    whole, found = np.asarray(nib.load(out).dataobj), record.read(out)
    assert found is not None
    noises = []
    for i in range(4):
        assert cli.run(["upscale", str(unlike), str(one), *stated, "--volume", str(i), "--force"]) == 0
        np.testing.assert_array_equal(np.asarray(nib.load(one).dataobj), whole[..., i])
        alone = record.read(one)
        assert alone is not None
        assert (alone.background, alone.masked) == ((0.0, 1) if i == 1 else (None, 0))
        noises += [] if alone.noise is None else [alone.noise]
    assert found.noise is None  # of the first
    assert found.noise_range == (min(noises), max(noises))
    assert max(noises) == pytest.approx(40 / float(np.percentile(taken(40.0), 99.9)), rel=0.15)
    assert "air" in found.noise_by.split(", ")
    assert (found.masked, found.volumes) == (1, 4)
    assert found.known()["background"].startswith("a constant background of some value in 1 of 4 volumes")
    assert f"{min(noises):.1%} to {max(noises):.1%}" in found.known()["noise"]


@pytest.mark.slow
def test_the_band_of_a_series_is_one(tmp_path: Path) -> None:
    """That of its first volumes which are not of one value, together."""
    frames = [np.full((100, 92, 3), 7.0), *(taken(10.0, seed) for seed in range(3))]
    for frame in frames[1:]:
        frame[...] = np.moveaxis(Acquisition((60, 92), NONE, (100, 92))(np.moveaxis(frame, 2, 0)), 0, 2)
    nib.save(nib.Nifti1Image(np.stack(frames, -1).astype(np.float32), oblique()), tmp_path / "in.nii")
    for method in ("seran", "bicubic"):
        command = ["upscale", str(tmp_path / "in.nii"), str(tmp_path / "out.nii"), "--method", method]
        assert cli.run([*command, "--force"]) == 0
        found = record.read(tmp_path / "out.nii")
        assert found is not None
        assert found.kspace_support == pytest.approx((0.6, 1.0), abs=0.03)
    held = job.ahead(
        iter([Volume(np.full((5, 6, 7), t), oblique()) for t in np.arange(40, dtype=np.float32)])
    )
    assert len(held) == job.LOOKED
    assert len(job.ahead(iter([Volume(f.astype(np.float32), oblique()) for f in 4 * frames]))) == 6


@pytest.mark.slow
def test_volumes_of_about_the_same_noise_are_told_the_same() -> None:
    """So that what is measured a little differently makes no flicker; another level is told as such."""
    volumes = [Volume(taken(s, i).astype(np.float32), oblique()) for i, s in enumerate((20, 21, 20, 40))]
    steps = job.Steps(volumes[0], Options(), F32, more=volumes[1:])
    sigmas = [steps.fit(np.moveaxis(volume.data, 2, 0)).known.sigma for volume in volumes]
    assert sigmas[0] == sigmas[1] == sigmas[2]
    assert sigmas[3] > 1.5 * sigmas[0]
    part = Options(scanner=Scanner(noise="0.02"))
    fits = [
        job.Steps(volumes[0], part, F32, more=volumes[1:]).fit(2 * np.moveaxis(v.data, 2, 0)) for v in volumes
    ]
    assert [one.known.sigma / one.gain for one in fits] == pytest.approx([0.02] * 4)


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e20, -1e20, 5e4])
def test_a_damaged_voxel_spoils_its_surroundings_at_most(
    tmp_path: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    data = taken(10.0).astype(np.float32)
    made = []
    for name, there in (("sound", data[40, 50, 1]), ("spoilt", value)):
        data[40, 50, 1] = there
        nib.save(nib.Nifti1Image(data, oblique()), tmp_path / f"{name}.nii")
        out = tmp_path / f"{name}-out.nii"
        command = ["upscale", str(tmp_path / f"{name}.nii"), str(out), "--precision", "f32"]
        assert cli.run(command) == 0
        made.append(np.asarray(nib.load(out).dataobj))
    assert "; 1 damaged voxel replaced by the median around" in capsys.readouterr().out.splitlines()[-1]
    found = record.read(tmp_path / "spoilt-out.nii")
    assert found is not None
    assert found.spikes == 1
    away = np.abs(made[0] - made[1])
    assert away.max() < 0.2 * np.percentile(data, 99.9)
    away[60:100, 80:120, 1] = 0
    assert away.max() < 0.005 * np.percentile(data, 99.9)


def test_what_is_no_number_is_never_written(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the method and the way to it."""

    def predict(low: np.ndarray) -> np.ndarray:
        high = low.repeat(2, 1).repeat(2, 2)
        high[0, 5, 6:8] = np.nan, np.inf
        return high

    broken = Method("broken", (2, 2), predict, "bd", "corner")
    monkeypatch.setattr(methods, "method", lambda *given, **options: broken)
    for call in (lambda: seran.upscale(scan), lambda: seran.load()(scan)):
        with pytest.raises(BadInput, match="the result: expected finite voxels, got 2 of NaN or infinity"):
            call()
    assert cli.run(["upscale", str(scan), str(tmp_path / "out.nii")]) == 2
    assert "expected finite voxels" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [scan.name]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e27, 1e-30, 1e-42])
def test_intensities_of_any_size_are_sharpened(scale: float) -> None:
    data = (taken(10.0) * scale).astype(np.float32)
    made = seran.upscale((data, oblique()), engine=F32).data
    assert np.isfinite(made).all()
    assert np.percentile(made, 99.9) == pytest.approx(np.percentile(data, 99.9), rel=0.1)


def test_small_slices_are_refused_with_one_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in (2, 3):
        nib.save(nib.Nifti1Image(phantom((size, 30, 4)), oblique()), tmp_path / "in.nii")
        command = ["upscale", str(tmp_path / "in.nii"), str(tmp_path / "out.nii"), "--no-label-check"]
        for method in ("seran", "bicubic"):
            assert cli.run([*command, "--method", method]) == 2
            assert "must be at least 4x4; choose another --plane" in capsys.readouterr().err


def test_a_forgotten_ending_is_named(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["upscale", str(scan), str(tmp_path / "q")]) == 2
    assert f"{tmp_path / 'q'}: must end in .nii, .nii.gz," in capsys.readouterr().err


@pytest.mark.slow
def test_a_bright_background_is_found_and_kept() -> None:
    data = smooth((60, 60, 3)) + 100
    y, x = np.indices((60, 60)) - 30
    data[np.hypot(y, x) > 22] = 2 * data.max()
    made = seran.upscale((data, oblique()), engine=F32)
    assert made.record is not None
    assert made.record.background == pytest.approx(data.max())
    assert made.data[:5, :5] == pytest.approx(data.max(), rel=1e-5)


def test_what_makes_tissue_noisier_is_told_more_noise() -> None:
    """Air may be quieter than tissue: then what is told grows until flat tissue is as it was, or so far."""
    rng = np.random.default_rng(0)
    truth = np.full((4, 96, 96), 100, np.float32)
    truth[:, 30:66, 30:66] = 200
    stack = Acquisition((96, 96))(truth, 3.0, rng).astype(np.float32)
    gain = Normalisation.of(stack).gain

    def predict(low: np.ndarray) -> np.ndarray:
        """Noise times 1.3, less what is told."""
        x, told = low[:, 0], float(low[0, 1, 0, 0])
        flat = gaussian_filter(x, (0, 2, 2))
        return (flat + (1.3 - told) * (x - flat)).repeat(2, 1).repeat(2, 2)

    def unbound(_: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    plain = Method("toy", (2, 2), unbound, "td", "center", heads=lambda k: Running(predict, "toy", "f32"))
    found = native.quieted(plain, measure.Measured(), stack)
    high = sharpen(stack, native.bound(plain, found, (96, 96))).image
    tissue = measures(stack, high, gain, "center").tissue
    assert tissue is not None
    assert 0.7 < tissue <= native.QUIET
    assert found.by == "tissue"
    assert native.quieted(plain, found, stack) == found
    quiet = measure.Measured(sigma=0.004 * gain, by="air")  # twice as much at most
    assert native.quieted(plain, quiet, stack).sigma <= 0.00801 * gain


@pytest.mark.parametrize("value", [-1000.1, 0, 10000.3])
def test_nothing_is_darker_than_a_constant_background_that_is_the_darkest(value: float) -> None:
    """Rings at the edge of the head are held as they are where the background is 0."""
    stack = phantom((3, 64, 60)) + np.float32(value)
    inside = np.hypot(*np.ogrid[-1:1:64j, -1:1:60j]) < 0.8
    stack = np.where(inside, stack + 300, np.float32(value))
    volume = Volume(np.moveaxis(stack, 0, 2), oblique())
    made, _, told = job.Steps(volume, Options(), Engine())(volume)
    assert told.background == pytest.approx(value)
    assert made.data.min() >= np.float32(value) - 1e-6 * np.ptp(stack) - 1e-6 * abs(value)
