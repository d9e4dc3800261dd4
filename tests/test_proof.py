"""The programs that prove the native network: `paper/native_matrix.py` on made scans, `paper/real.py`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from scipy import ndimage

from seran import grid, kspace
from seran.data.sources import Source, find
from seran.degrade import Bicubic, Truncation
from seran.engines import Engine
from tests.conftest import phantom
from tests.test_prepare import save

PAPER = Path(__file__).parents[1] / "paper"
ONE = Engine(threads=1)


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """They are programs: what lies beside them is imported by its bare name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PAPER))
        yield
        for path in PAPER.glob("*.py"):
            sys.modules.pop(path.stem, None)


def blobs(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """An image that is known everywhere: smooth, and nearly nothing at the edges of 48 x 60 pixels."""
    parts = [(20.3, 30.1, 3.0, 1.0), (29.6, 22.8, 4.0, 0.7), (25.2, 39.4, 2.5, 0.5)]
    return sum(a * np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * s**2)) for v, u, s, a in parts)


def at(affine: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """That image in the voxels of a grid."""
    rows, columns = (affine[i, i] * np.arange(n) + affine[i, 3] for i, n in enumerate(shape))
    return blobs(rows[:, None], columns)[None].astype(np.float32)


@pytest.mark.parametrize("given", ["corner", "center"])
@pytest.mark.parametrize("anchor", ["corner", "center"])
def test_an_ideal_network_is_not_punished_for_its_anchor(given: str, anchor: str) -> None:
    from acquisitions import aligned, psnr

    truth = at(np.eye(4), (48, 60))
    low = grid.rescale(np.eye(4), (0.5, 0.5, 1), given)  # type: ignore[arg-type]
    fine = grid.rescale(low, (2, 2, 1), anchor)  # type: ignore[arg-type]
    made = at(fine, (48, 60))
    assert psnr(truth, aligned(made, anchor, given, 2)) > 80  # type: ignore[arg-type]
    if anchor != given:
        assert psnr(truth, made) < 40


def test_the_given_images_have_the_anchors_that_are_stated() -> None:
    from acquisitions import CASES, acquired

    truth = at(np.eye(4), (48, 60))
    for name, degrade in (("bicubic", Bicubic), ("truncation", Truncation)):
        _, low = acquired(truth, CASES[name])
        assert degrade.anchor == CASES[name].anchor
        seen = at(grid.rescale(np.eye(4), (0.5, 0.5, 1), CASES[name].anchor), (24, 30))
        off = np.subtract(ndimage.center_of_mass(low[0]), ndimage.center_of_mass(seen[0]))
        np.testing.assert_allclose(off, 0, atol=0.01)


def test_zero_filling_gains_nothing_over_itself() -> None:
    """The library's own, against k-space filled by hand."""
    from acquisitions import CASES, acquired, psnr
    from native_matrix import cell

    x = phantom((3, 48, 60)) / 400
    scores, _ = cell(x, CASES["truncation"], ["zerofill"], ONE, oracle=False)
    _, s = acquired(x, CASES["truncation"])
    assert scores["zerofill"] == pytest.approx(psnr(x, kspace.regridded(s, (48, 60))), abs=5e-3)


def test_a_mask_leaves_nothing_outside_of_it() -> None:
    from acquisitions import CASES, acquired

    x, s = acquired(np.pad(phantom((2, 36, 48)) / 400, ((0, 0), (6, 6), (6, 6))), CASES["masked-1"])
    assert 0.03 < (x > 0).mean() < 0.9
    assert (s == 0).mean() == pytest.approx((x == 0).mean(), abs=0.03)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of two small scans."""
    folder = tmp_path_factory.mktemp("proof")
    for i in range(2):
        save(folder / f"{i}.nii.gz", phantom((52, 61, 5), i))
    rows = [f"val,{i}.nii.gz,T{1 + i},s{i}" for i in range(2)]
    (folder / "list.csv").write_text("\n".join(["split,path,contrast,subject", *rows]))
    return folder / "list.csv"


@pytest.mark.slow
def test_a_resumed_matrix_is_that_of_a_single_call(scans: Path, tmp_path: Path) -> None:
    import native_matrix

    columns, ways = ("filled-tukey-2", "masked-1"), ("bicubic", "seran-td", "native")
    common = {"split": "val", "slices": 2, "threads": 1}
    kept = []
    for name, steps in {
        "once": [{"ways": ways}],
        "resumed": [{"ways": ("native",), "only": "1.nii"}, {"ways": ways}],
    }.items():
        out = tmp_path / name
        out.mkdir()
        for step in steps:
            native_matrix.main((scans,), columns=columns, out=out, figures=out, **common, **step)
        kept.append([(out / f"native_matrix-val{end}").read_text() for end in (".json", ".md")])
        assert (out / "native_matrix-val.png").stat().st_size > 10_000
    once, resumed = (json.loads(text[0]) for text in kept)
    assert once == resumed
    assert kept[0][1] == kept[1][1]
    cells = once["results"]["0.nii.gz"]["psnr"]
    assert set(cells["masked-1"]) == {"zerofill", "bicubic", "seran-td", "native"}
    assert set(cells["filled-tukey-2"]) == {"zerofill", "bicubic", "native"}  # the others keep no grid
    assert once["results"]["0.nii.gz"]["measured"]["masked-1"]["background"] == 0


def test_cells_of_other_weights_are_made_again(scans: Path) -> None:
    """Of the methods that are asked for; each column as it is asked for, none left from before."""
    from gains import table
    from native_matrix import computed

    given, calls = list(find(scans)), []

    def fill(rows: dict, names: list[str], columns: list[str], digests: dict[str, str]) -> list[tuple]:
        def work(source: Source, column: str, missing: list[str]) -> tuple[dict, dict]:
            calls.append((source.path.name, column, missing))
            return dict.fromkeys(missing, 30.0), {"fraction": (1, 1), "window": "", "noise": 0, "by": "air"}

        calls.clear()
        list(computed(rows, given, names, columns, digests, work))
        return calls

    rows, both, held = {}, ["truncation", "noise-1"], {"native": "a1" * 32, "seran-bd": "b1" * 32}
    assert len(fill(rows, ["seran-bd", "native"], both, held)) == 4
    assert rows["0.nii.gz"]["weights"] == held
    assert fill(rows, ["seran-bd", "native"], both, held) == []
    # other weights of a method that is not asked for change nothing
    assert fill(rows, ["bicubic"], both, {}) == [
        (f"{i}.nii.gz", c, ["bicubic"]) for i in (0, 1) for c in both
    ]
    assert fill(rows, ["seran-bd"], both, {"seran-bd": "b1" * 32}) == []
    assert fill(rows, ["native"], both[:1], {"native": "a2" * 32}) == [
        (f"{i}.nii.gz", "truncation", ["native"]) for i in (0, 1)
    ]
    for row in rows.values():
        assert row["weights"] == {"native": "a2" * 32, "seran-bd": "b1" * 32}
        assert list(row["measured"]) == ["truncation"]
        assert "native" in row["psnr"]["truncation"]
        assert set(row["psnr"]["noise-1"]) == {"zerofill", "seran-bd", "bicubic"}
    assert table(rows)[0] == f"Weights: SERAN-BD {'b1' * 6}, native {'a2' * 6}"


@pytest.mark.slow
def test_the_digests_are_those_of_what_is_run() -> None:
    from ways import WAYS, digest, through

    for name, way in WAYS.items():
        _, steps = through(phantom((2, 24, 30)), way, 2, ONE)
        assert steps.method.sha256 == digest(name)


def test_bars_name_what_is_missed() -> None:
    from gains import bars

    def row(gain: float) -> dict:
        psnr = {"zerofill": 30.0, "native": 30.0 + gain}
        return {"contrast": "T2", "subject": "a", "psnr": {"truncation": psnr}, "measured": {}}

    said = "\n".join(bars({"x": row(9.0), "y": row(-0.06)}))
    assert "| truncation | T2 | +3.60 | +4.47 | reached |" in said
    assert "MISSED\n\n- native, truncation, y: -0.06 dB" in said
    assert "MISSED" not in "\n".join(bars({"x": row(9.0), "y": row(-0.04)}))


def test_frc_of_the_same_is_one_and_of_noise_nearly_nothing() -> None:
    from rescan import frc

    x, y = np.random.default_rng(0).normal(size=(2, 8, 64, 72))
    np.testing.assert_allclose(frc(x, x, 10), 1)
    assert np.abs(frc(x, y, 10)[1:]).max() < 0.1  # the first ring has few frequencies
    assert frc(x, x + y, 10)[2:].mean() == pytest.approx(np.sqrt(0.5), abs=0.03)


@pytest.mark.parametrize("truth", [(0.0, 1.3, -2.6), (-2.2, -3.7, 1.2)])
def test_registration_finds_a_known_movement(truth: tuple[float, float, float]) -> None:
    """Of one contrast by phases; of another, on another grid, by information."""
    from registration import Rigid, matched, placed, registered

    moving = ndimage.gaussian_filter(phantom((3, 96, 104)), (0, 1, 1))
    fixed = placed(moving, Rigid(*truth), mm=(0.8, 0.8))
    found = registered(fixed, moving, (0.8, 0.8))
    np.testing.assert_allclose([found.angle, found.down, found.right], truth, atol=0.1)
    unlike = placed((400 - moving) ** 2 / 400, Rigid(0, 0, 0), (70, 80), (0.8, 0.8), (1.1, 1.1))
    found = matched(fixed, (0.8, 0.8), unlike, (1.1, 1.1))
    np.testing.assert_allclose([found.angle, found.down, found.right], truth, atol=0.2)


def test_placing_moves_by_the_stated_millimetres() -> None:
    from registration import Rigid, placed

    image = at(np.eye(4), (48, 60))
    moved = placed(image, Rigid(0, 1.5, -0.8), mm=(0.5, 0.4))
    off = np.subtract(ndimage.center_of_mass(image[0]), ndimage.center_of_mass(moved[0]))
    np.testing.assert_allclose(off, (3, -2), atol=0.01)


def waves(holes: np.ndarray, shape: tuple[int, int], scale: int) -> np.ndarray:
    """A fine image that is 1 in the holes of the first array of a pair and 0.2 between those of a row."""
    from phantom import SKEW

    distance = holes[0, 0, 1, 1] - holes[0, 0, 0, 1]
    y, x = (np.arange(n)[:, None] / scale - holes[0, 0, 0, i] for i, n in enumerate(shape))
    return 0.6 + 0.4 * np.cos(2 * np.pi * (x.T - SKEW * y) / distance)


def test_modulation_of_known_rows_of_holes() -> None:
    from phantom import modulations, pair

    holes = pair(2.25) + np.array([12.3, 14.6])
    found = modulations(waves(holes, (52, 56), 2), holes, 2)
    np.testing.assert_allclose(found[:4], (1 - 0.2) / (1 + 0.2), atol=0.01)
    turned = holes[:, :, :, ::-1][::-1]  # exchanged axes exchange the arrays: the waves are now along y
    np.testing.assert_allclose(modulations(waves(holes, (52, 56), 2).T, turned[::-1], 2)[:4], found[:4])


def test_arrays_are_found_wherever_they_are() -> None:
    """On a made phantom that is mirrored, turned a little, and not on whole pixels."""
    from phantom import HOLES, STEP, located, pair, rendered

    y, x = np.indices((200, 200)) - 100.0
    block = (np.abs(y) < 18) & (np.abs(x) < 56)
    image = ndimage.gaussian_filter(1000.0 * ((np.hypot(y, x) < 90) & ~block), 0.5)
    turn, truth = np.diag([1.0, -1.0]), {}
    for i, d in enumerate(HOLES):
        truth[d] = pair(2 * d / 0.98) @ turn + [100.4, 122.7 - i * STEP / 0.98]
        image += 900 * rendered(truth[d], d / 0.98, (200, 200)) / 13
    found = located(image.astype(np.float32), 0.98)
    for d, holes in truth.items():
        near = np.abs(found.holes[d].reshape(-1, 1, 2) - holes.reshape(-1, 2)).max(2).min(1)
        assert near.max() < 0.1
        assert found.fit[d] > 0.97
    assert found.level == pytest.approx(1000, rel=0.01)
    for row, column in np.rint(np.concatenate([h.reshape(-1, 2) for h in truth.values()])).astype(int):
        assert not found.flat[row - 2 : row + 3, column - 2 : column + 3].any()
    assert found.flat.sum() > 1000


def test_edge_width_of_a_known_blur() -> None:
    """Range ÷ steepest slope of a Gaussian edge of sigma s is s √(2π); noise does not make it narrower."""
    from field import edge_width

    rng = np.random.default_rng(0)
    step = 100.0 * (np.indices((3, 80, 90))[2] > 44)
    image = ndimage.gaussian_filter(step, (0, 2, 2)) + rng.normal(0, 10, step.shape)
    mask = np.ones(step.shape, bool)
    mask[:, :8], mask[:, -8:] = False, False
    assert edge_width(image, step, mask, (0.5, 0.5)) == pytest.approx(np.sqrt(2 * np.pi), rel=0.1)


def test_the_key_of_the_blind_sheet_is_right(tmp_path: Path) -> None:
    from sheet import blind, order

    levels = {"scan": 0.0, "bicubic": 0.2, "seran-bd": 0.4, "seran-td": 0.6, "native": 0.8}
    shown = {name: np.full((20, 20), level, np.float32) for name, level in levels.items()}
    rows = {f"{i}.nii.gz": (shown, 1.0) for i in range(3)}
    blind(rows, 7, tmp_path / "blind.png")
    key = json.loads((tmp_path / "blind-key.json").read_text())
    assert list(key["rows"].values()) == order([n for n in levels if n != "scan"], 7, 3)
    assert order(list("abcd"), 1, 6) != order(list("abcd"), 2, 6)
    picture = matplotlib.image.imread(tmp_path / "blind.png")[..., 0]
    for i, names in enumerate(key["rows"].values()):
        for j, name in enumerate(names):
            y, x = ((k + 0.55) / n * size for k, n, size in zip((i, j), (3, 4), picture.shape, strict=True))
            assert picture[int(y), int(x)] == pytest.approx(levels[name], abs=0.02)


def test_lesions_that_fade_shrink_vanish_and_appear() -> None:
    """Of a disc of 1.0 in a head of 0.4: what is stated of it is what was done to it."""
    import lesions

    _, row, column = np.indices((3, 120, 110))
    far = np.hypot(row - 60, column - 55)
    head = np.where(far < 50, 0.4, 0.0) + 0.002 * np.random.default_rng(0).standard_normal(far.shape)
    lesion = lesions.Lesion("", (1, 60, 55), 9, "disc")
    images = {
        "same": head + 0.6 * (far < 5),
        "paler": head + 0.45 * (far < 5),
        "smaller": head + 0.6 * (far < 3),
        "noisier": head + 0.6 * (far < 5) + 0.02 * np.random.default_rng(1).standard_normal(far.shape),
        "gone": head,
        "more": head + 0.6 * (far < 5) + 0.5 * (np.hypot(row - 80, column - 75) < 4),
    }
    found = lesions.scored(images["same"], images, [lesion])
    [one] = found["lesions"]
    parts, whole = one["ways"], found["ways"]
    assert one["voxels"] == 3 * (far[1] < 5).sum()
    assert {way: round(part["contrast"], 2) for way, part in parts.items()} == {
        "same": 1, "paler": 0.75, "smaller": pytest.approx((far < 3).sum() / (far < 5).sum(), abs=0.01),
        "noisier": pytest.approx(1, abs=0.02), "gone": 0, "more": 1,
    }  # fmt: skip
    assert [parts[way]["volume"] for way in ("same", "paler", "gone")] == [1, 1, 0]
    assert parts["smaller"]["volume"] == pytest.approx((far < 3).sum() / (far < 5).sum())
    assert parts["noisier"]["cnr"] == pytest.approx(0.6 / 0.02, rel=0.1)
    assert {way: (one["lost"], one["new"]) for way, one in whole.items()} == {
        "same": (0, 0), "paler": (0, 0), "smaller": (0, 0), "noisier": (0, 0), "gone": (1, 0), "more": (0, 1),
    }  # fmt: skip
    assert (whole["gone"]["error"], whole["more"]["error"]) == (
        0,
        3 * (np.hypot(row - 80, column - 75)[1] < 4).sum(),
    )


def test_bands_at_the_slices_are_seen() -> None:
    """A step of brightness at every fifth slice is seen in its power; noise has none."""
    from isotropic import banding

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (100, 40, 40))
    bands = noise + 2 * np.sin(2 * np.pi * np.arange(100) / 5)[:, None, None] * rng.normal(0, 1, (40, 40))
    assert banding(noise, 20) == pytest.approx(1, abs=0.05)
    assert banding(bands, 20) > 10
    assert banding(bands, 30) == pytest.approx(1, abs=0.1)
