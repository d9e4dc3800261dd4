"""Acquisitions in torch are those of `seran.acquisition`; draws, shards and training of `paper/native`.

It needs pytest and no fixture of the project, so that it runs where there is little more than torch.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from seran import kspace
from seran.acquisition import NONE, Acquisition, Window, canonical
from seran.data import simulate
from seran.errors import BadInput

ROOT = Path(__file__).parents[1]
RADIFOX = os.environ.get("SERAN_RADIFOX", "")
"""The program degrade-fourier of radifox-utils, which wants an environment of its own."""
WINDOWS = [
    NONE,
    *(
        Window(kind, a, elliptical=elliptical)
        for kind, a in (("tukey", 0.4), ("hamming", 0.46), ("fermi", 0.9))
        for elliptical in (False, True)
    ),
]
GRIDS = [((24, 30), (24, 30)), ((21, 40), (32, 45)), ((40, 33), (80, 66)), ((13, 20), (26, 20))]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
]


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """They are programs: what lies beside them is imported by its bare name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "paper" / "native"))
        yield
        for name in ("draw", "kit", "network", "shards", "thick", "train"):
            sys.modules.pop(name, None)


def blobs(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Slices with edges on a dark background, 99.9th percentile about 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    made = np.zeros(shape)
    for one in made:
        for _ in range(12):
            (cy, cx), (a, b) = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.1, 0.5, 2)
            one += (((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1) * rng.uniform(0.1, 1)
    return (made / np.percentile(made, 99.9)).astype(np.float32)


def near(made: torch.Tensor, expected: np.ndarray) -> None:
    made = made.cpu()
    assert made.shape == expected.shape
    assert np.abs(made.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("partial", [1.0, 0.75])
@pytest.mark.parametrize("matrices", [True, False])
def test_torch_acquires_as_numpy_does(
    device: str, window: Window, partial: float, matrices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether Fourier transforms are products with matrices, as on a GPU, or not."""
    monkeypatch.setattr(simulate, "MATRICES", (device,) if matrices else ())
    x = blobs((2, 40, 45))
    for acquired, filled in GRIDS:
        scanner = Acquisition(acquired, window, filled, partial)
        seen = scanner(x)
        near(simulate.acquire(torch.from_numpy(x).to(device), scanner), seen)
        there = torch.from_numpy(seen).to(device)
        near(simulate.canonical(there, acquired, window), canonical(seen, acquired, window))
        near(simulate.canonical(there, acquired), canonical(seen, acquired))
        near(simulate.regridded(there, (37, 31)), kspace.regridded(seen, (37, 31)))


@pytest.mark.parametrize("device", DEVICES)
def test_noise_enters_as_in_numpy(device: str) -> None:
    """What numpy draws is given to torch."""
    x, scanner = blobs((2, 40, 45)), Acquisition((21, 30), Window("hamming", 0.3), (42, 30))
    drawn = np.random.default_rng(3).standard_normal((2, 21, 30, 2), dtype=np.float32)
    noise = torch.from_numpy(drawn.view(np.complex64)[..., 0].copy()).to(device)
    made = simulate.acquire(torch.from_numpy(x).to(device), scanner, 0.05, noise)
    near(made, scanner(x, 0.05, np.random.default_rng(3)))
    with pytest.raises(BadInput, match="expected noise"):
        simulate.acquire(torch.from_numpy(x).to(device), scanner, 0.05)


def test_the_head_is_as_deep_as_erosions_say() -> None:
    from scipy import ndimage

    x = blobs((3, 40, 46)) + 0.3 * blobs((3, 40, 46), 1)
    depth = simulate.heads(x, np.random.default_rng(0))
    assert depth.shape == (3, 20, 23)
    for one in depth:
        assert one.max() > 3
        for r in (1, 2, 3):
            np.testing.assert_array_equal(one > r, ndimage.binary_erosion(one > 0, iterations=r))


def test_another_contrast_as_in_numpy() -> None:
    from seran.data.patches import recontrasted

    x = blobs((2, 20, 24))
    for seed in range(8):
        made = simulate.recontrasted(torch.from_numpy(x), np.random.default_rng(seed))
        np.testing.assert_allclose(made[0], recontrasted(x[0], np.random.default_rng(seed)), atol=1e-6)


def volumes() -> list[tuple[str, np.ndarray, float]]:
    """Of the first, slices are neighbours."""
    shapes = [("T1", (4, 60, 72), 1.2), ("T2", (3, 72, 64), 5.0), ("b0", (2, 64, 66), 2.0)]
    return [(name, blobs(shape, i), distance) for i, (name, shape, distance) in enumerate(shapes)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_batch_depends_on_seed_and_step_alone(scale: int, device: str) -> None:
    from draw import Draw, Size

    size = Size((12, 12), 5, 2, 3)
    one, two, other = (Draw(volumes(), seed, device) for seed in (7, 7, 8))
    one.batch(0, scale, size)
    made = one.batch(41, scale, size)
    low, facts, high = (side.cpu() for side in made)
    assert low.shape == (30, 1, 12, 12)
    assert high.shape == (30, 1, 12 * scale, 12 * scale)
    assert facts.shape == (30, 4)
    for side in (low, facts, high):
        assert torch.isfinite(side).all()
    for again, wanted in zip(two.batch(41, scale, size), made, strict=True):
        torch.testing.assert_close(again, wanted, rtol=0, atol=0)
    assert not torch.equal(other.batch(41, scale, size)[2], made[2])


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_clean_scan_lies_where_its_truth_lies(scale: int) -> None:
    """Every variation but noise and masks: low patches are near the truth at their samples."""
    from draw import Chances, Draw, Size

    chances = Chances(noisy=0, windowed=0, masked=0, bicubic=0, misjudged=0, filled=1)
    draw = Draw(volumes(), 0, chances=chances)
    low, facts, high = draw.batch(0, scale, Size((16, 16), 12, 1, 2))
    assert not facts.any()
    apart = high[..., ::scale, ::scale] - low
    assert apart.std() < (0.06 if scale > 1 else 0.02)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("factor", [2, 5])
def test_a_batch_of_thick_slices_depends_on_seed_and_step_alone(factor: int, device: str) -> None:
    from thick import Size, ThickDraw

    size = Size((6, 12), 5, 2, 3)
    one, two, other = (ThickDraw(volumes(), seed, device) for seed in (7, 7, 8))
    one.batch(0, factor, size)
    made = one.batch(41, factor, size)
    assert [tuple(side.shape) for side in made] == [(30, 3, 6, 12), (30, 4), (30, 1, 6 * factor, 12)]
    for side, again in zip(made, two.batch(41, factor, size), strict=True):
        assert torch.isfinite(side).all()
        torch.testing.assert_close(again, side, rtol=0, atol=0)
    assert not torch.equal(other.batch(41, factor, size)[2], made[2])


def test_thick_slices_lie_where_their_truth_lies() -> None:
    """Without noise and masks, thick slices are near the mean of the rows that they cover."""
    from thick import Chances, Size, ThickDraw

    draw = ThickDraw(volumes(), 0, chances=Chances(noisy=0, masked=0, thickness=(1, 1)))
    for factor in (2, 3, 4):
        low, facts, high = draw.batch(factor, factor, Size((8, 16), 12, 1, 2))
        assert not facts[:, 0].any()
        assert facts[:, 3].unique().tolist() == [factor / 8]
        apart = high[:, 0].unflatten(1, (-1, factor)).mean(2) - low[:, 1]
        shifted = high[:, 0].roll(factor, 1).unflatten(1, (-1, factor)).mean(2) - low[:, 1]
        assert apart.std() < 0.05 < shifted.std()


def test_neighbours_are_shown_where_slices_are_near() -> None:
    """One of the three volumes has such; a part of its slices are shown alone all the same."""
    from thick import Chances, Size, ThickDraw

    draw = ThickDraw(volumes(), 0, chances=Chances(noisy=0, masked=0))
    low = draw.batch(0, 2, Size((10, 20), 120, 1, 1))[0]
    assert 0.1 < (low[:, 0] != low[:, 1]).flatten(1).any(1).float().mean() < 0.5


@pytest.mark.slow
def test_shares_of_what_is_drawn() -> None:
    """Noise and windows come as often as `Chances` say, and the noise has its range."""
    from draw import Chances, Draw, Size

    c = Chances()
    draw = Draw(volumes(), 1)
    facts = torch.cat([draw.batch(k, 1, Size((8, 8), 40, 1, 1))[1] for k in range(6)])
    assert (facts[:, 0] > 0).float().mean() == pytest.approx(c.noisy, abs=0.1)
    said = facts[facts[:, 0] > 0, 0].log()
    assert said.mean() == pytest.approx(np.log(c.sigma).mean(), abs=0.2)
    assert (facts[:, 1:] > 0).any(1).float().mean() == pytest.approx(c.windowed, abs=0.1)


def test_shards_are_lossless(tmp_path: Path) -> None:
    import shards

    rng = np.random.default_rng(0)
    for stack in (rng.integers(0, 65536, (3, 7, 9)), np.zeros((1, 4, 5)), 60 * blobs((4, 33, 30))):
        stack = stack.astype(np.uint16)
        np.testing.assert_array_equal(shards.decode(shards.encode(stack), stack.shape), stack)
    x = blobs((2, 20, 30)) - 0.1
    made = shards.decoded(*shards.coded(x)).astype(np.float32)
    np.testing.assert_allclose(made, x, atol=0.5 / shards.CODE + 2**-11)


def packed(out: Path) -> list[dict]:
    import shards

    shared = {"source": "", "sha256": "", "repository": "", "licence": "", "subject": "", "band": [1.0, 1.0]}
    rows = []
    for i, (contrast, stack, _) in enumerate(2 * volumes()):
        facts = {"split": "train" if i < 5 else "val", "contrast": contrast, "spacing": [2.0, 1.0, 1.0]}
        rows.append((shared | facts, stack))
    return shards.pack(rows, out, megabytes=0.01)


def test_shards_come_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shards

    rows = packed(tmp_path / "out")
    files = sorted((tmp_path / "out").glob("shard-*.zip"))
    assert len(files) > 1
    assert all(file.stat().st_size < 0.01 * shards.MIB for file in files)
    kit, lists = tmp_path / "kit", [tmp_path / "out" / "shards.json", tmp_path / "out" / "volumes.json"]
    with pytest.raises(BadInput, match=r"bring shards\.json first"):
        shards.unpack(kit, files[:1])
    shards.unpack(kit, [*lists, files[0]])
    assert shards.missing(kit) == [file.name for file in files[1:]]
    assert f"not there yet: {files[1].name}" in capsys.readouterr().err
    some = len(shards.volumes(kit, "train"))
    damaged = bytearray(files[1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / files[1].name).write_bytes(damaged)
    with pytest.raises(BadInput, match="damaged: expected the SHA-256"):
        shards.unpack(kit, [tmp_path / files[1].name])
    shards.unpack(kit, [tmp_path / "out"])
    assert f"{files[0].name}: already there" in capsys.readouterr().err
    assert not shards.missing(kit)
    held = shards.volumes(kit, "train")
    assert len(held) == 5 > some > 0
    for row in held:
        original = dict(zip((r["file"] for r in rows), (2 * volumes()), strict=True))[row["file"]][1]
        np.testing.assert_allclose(row["stack"], original, atol=1e-3)
    (tmp_path / "out" / "volumes.json").write_text("[]")
    with pytest.raises(BadInput, match="of another pack"):
        shards.unpack(kit, [tmp_path / "out"])


def test_a_checkpoint_travels_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shards

    monkeypatch.setattr(shards, "PART", 1000)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(np.random.default_rng(0).normal(size=1001).astype(np.float32).tobytes() + b"abc")
    shards.split(file, tmp_path / "parts", 5)
    parts = sorted((tmp_path / "parts").glob("checkpoint-*.part"))
    assert len(parts) > 2
    kit = tmp_path / "kit"
    shards.unpack(kit, [tmp_path / "parts" / "parts.json", parts[0]])
    with pytest.raises(BadInput, match="has not come yet"):
        shards.join(kit, tmp_path / "joined")
    shards.unpack(kit, parts[1:])
    shards.join(kit, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == file.read_bytes()
    parts[0].write_bytes(b"x")
    with pytest.raises(BadInput, match="damaged"):
        shards.unpack(kit, parts[:1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["native", "isotropic"])
def test_training_goes_on_where_it_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, name: str
) -> None:
    """Of a small network: the state is restored to the bit, from the folder or from parts elsewhere."""
    import shards
    import train

    kind = train.TASKS[name].network
    small = {"l1": train.Size((4, 8), 2, 1, 2), "l2": train.Size((4, 8), 2, 1, 1)}
    if name == "native":
        small = {loss: size._replace(patch=(8, 8)) for loss, size in small.items()}
    task = dataclasses.replace(
        train.TASKS[name],
        network=lambda: torch.manual_seed(0) and kind(8, 2),
        sizes={device: small},
    )
    monkeypatch.setitem(train.TASKS, name, task)
    monkeypatch.setattr(train.signal, "signal", lambda number, handler: None)
    weights = tmp_path / "start.safetensors"
    train.Run(task.network(), 1e-4, device).weights(weights)
    packed(tmp_path / "out")
    kit = tmp_path / "kit"
    shards.unpack(kit, [tmp_path / "out"])
    options = train.Options(
        name, 1, stop=0.02, every=1, device=device, weights=weights, result=tmp_path / "result"
    )
    first = train.train(kit, tmp_path / "run", options)
    assert first.step > 0
    assert {p.suffix for p in (tmp_path / "result").iterdir()} == {".part", ".json", ".safetensors", ".csv"}
    second = train.train(kit, tmp_path / "run", options)
    assert second.step > first.step
    assert second.seconds > first.seconds
    for name in ("parts.json", *json.loads((tmp_path / "result" / "parts.json").read_text())["parts"]):
        shutil.copy(tmp_path / "result" / name, kit)
    third = train.begin(options, kit, tmp_path / "elsewhere")
    assert (third.step, third.seconds, third.patches) == (second.step, second.seconds, second.patches)
    for a, b in (
        (third.network.state_dict(), second.network.state_dict()),
        (third.average, second.average),
        *(
            (third.optimizer.state_dict()["state"][i], state)
            for i, state in second.optimizer.state_dict()["state"].items()
        ),
    ):
        for key, value in b.items():
            assert torch.equal(a[key], value), key


@pytest.mark.skipif(not RADIFOX, reason="SERAN_RADIFOX names no degrade-fourier of radifox-utils")
def test_truncation_with_a_fermi_filter_agrees_with_radifox(tmp_path: Path) -> None:
    """The field's own `degrade-fourier`, an independent implementation, on odd grids of one slice.

    Its filter is ours with a = 1 and b = 20/n, but 1/(1 + exp(-n/20)) instead of 1 at k = 0, along every
    axis: that of a single slice halves the image. On even grids it lies half a frequency beside the zero
    frequency, with unlike parities it keeps one sample more than asked, and its affine keeps the outer corner
    where truncation keeps the centre of voxel 0: these are not compared.
    """
    import nibabel as nib

    n, m = 151, 101
    x = blobs((1, n, n)).transpose(1, 2, 0)
    nib.save(nib.Nifti1Image(x, np.diag([0.9, 0.9, 3, 1])), tmp_path / "high.nii")
    command = [RADIFOX, "--in-fpath", tmp_path / "high.nii", "--out-fpath", tmp_path / "low.nii"]
    mm = str(0.9 * n / m)
    subprocess.run([*command, "--target-res", mm, mm, "3"], check=True, capture_output=True)
    theirs = nib.load(tmp_path / "low.nii").get_fdata()[..., 0]
    at_zero = 0.5 / (1 + np.exp(-m / 20)) ** 2
    ours = Acquisition((m, m), Window("fermi", 1.0, 20 / m))(x[..., 0])
    np.testing.assert_allclose(theirs / at_zero, ours, atol=1e-3 * ours.max())
