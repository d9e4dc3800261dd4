"""Training on a made set: what it draws, that it resumes bit for bit, that processes agree, export."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from safetensors.torch import save as save_tensors

from seran import cli, evaluate, recipes, train, weights
from seran.apps.train import _minutes as minutes
from seran.classical import zerofill
from seran.data import patches as data
from seran.data import prepare
from seran.data.pairs import PreparedSet
from seran.data.prepare import PrepareOptions
from seran.degrade import Truncation
from seran.engines.torch import network
from seran.errors import BadInput
from seran.export import export
from seran.methods import Engine, method
from seran.models import adopt, build
from seran.models.layers import INITIALIZERS
from seran.recipes import RECIPES, Recipe
from seran.run import CHECKPOINT, Run, _average
from seran.systems import SYSTEMS, networks
from tests.conftest import LOOPBACK, listening, phantom
from tests.test_prepare import save

TINY = Recipe(
    "seran", 2, options={"width": 16, "depth": 2, "positions": [2]}, residual=True, patch=8, last_patch=12,
    batch=4, steps=12, lr=2e-3, schedule="cosine", warmup=3, tail=0.34, clip=0.5, ema=0.9, seed=5,
)  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("pairs")
    for i in (2, 4, 5, 7, 8, 15):  # by their hashes the last is val, the others train
        save(root / "raw" / f"sub-{i}_{'T1w' if i % 2 else 'T2w'}.nii.gz", phantom((62, 75, 5), i))
    return prepare.prepare(root / "raw", root / "set", PrepareOptions(scales=(2, 3)), report=lambda _: None)


def cpu(precision: str = "32-true") -> Fabric:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    return fabric


def run(pairs: PreparedSet, out: Path, recipe: Recipe = TINY, **options: float) -> Run:
    return train.train(recipe, pairs, out, cpu(), every=3, validate_every=6, slices=2, **options)


def state(run: Run) -> dict[str, torch.Tensor]:
    return {**run.network.state_dict(), **run.average.state_dict()}


def same(a: Run, b: Run) -> bool:
    left, right = state(a), state(b)
    return all(torch.equal(left[k], right[k]) for k in left)


def close(a: Run, b: Run) -> None:
    torch.testing.assert_close(state(a), state(b), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_validation_may_come_more_often_than_checkpoints(pairs: PreparedSet, tmp_path: Path) -> None:
    made = train.train(TINY, pairs, tmp_path, cpu(), every=10, validate_every=4, slices=2)
    assert [(row["step"], "psnr_T1" in row) for row in made.rows] == [
        (4, True), (8, True), (10, False), (12, True),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_program_trains_as_its_page_says(
    pairs: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    [code] = [found for found in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Fabric" in found]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "seran-x2-bd", TINY)
    Path("pairs").symlink_to(pairs.root)
    exec(code, {})
    exec(code.replace("mine", "again"), {})  # it goes on, at the end
    made, again = (weights.read(Path(name)) for name in ("mine.onnx", "again.onnx"))
    assert (made.card.model, made.card.scale) == ("seran", 2)
    assert made.digest == again.digest


def test_samples_depend_on_seed_step_and_index_only(pairs: PreparedSet) -> None:
    patches = data.Patches(pairs, "train", 2, seed=1)
    low, high = patches.batch(7, range(6), 10)
    assert low.shape == (6, 1, 10, 10)
    assert high.shape == (6, 1, 20, 20)
    for part in (range(3), range(3, 6)):
        torch.testing.assert_close(patches.batch(7, part, 10)[1], high[part.start : part.stop])
    assert not torch.equal(patches.batch(8, range(6), 10)[0], low)
    assert not torch.equal(data.Patches(pairs, "train", 2, seed=2).batch(7, range(6), 10)[0], low)


def test_patches_belong_together_and_are_not_background(pairs: PreparedSet) -> None:
    """The low patch is what the degradation makes of the high patch, away from its border."""
    from seran.degrade import Bicubic

    low, high = data.Patches(pairs, "train", 3, seed=0).batch(0, range(24), 14)
    made = Bicubic((3, 3))(high.numpy())
    np.testing.assert_allclose(made[..., 3:-3, 3:-3], low.numpy()[..., 3:-3, 3:-3], atol=1e-4)
    assert (low.std((1, 2, 3)) > 0.02).float().mean() > 0.9


def test_all_symmetries_and_contrasts_are_drawn(pairs: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = np.arange(12.0).reshape(3, 4)
    codes = [(bool(k & 4), (bool(k & 2), bool(k & 1))) for k in range(8)]
    views = {(data._dihedral(patch, *c).tobytes(), data._dihedral(patch, *c).shape) for c in codes}
    assert len(views) == 8
    patches = data.Patches(pairs, "train", 2, seed=0)
    assert list(patches.groups) == ["T1", "T2"]
    original = data._dihedral
    seen: set[tuple[bool, tuple[bool, bool]]] = set()
    monkeypatch.setattr(data, "_dihedral", lambda patch, *c: seen.add(c) or original(patch, *c))
    patches.batch(0, range(100), 8)
    assert seen == set(codes)


@pytest.mark.parametrize("scale", [2, 3])
def test_mirrored_patches_of_truncated_scans_still_belong_together(tmp_path: Path, scale: int) -> None:
    """Low voxel i lies on fine voxel s·i whatever the symmetry: band-limited scans show it exactly."""
    for i in (2, 4):
        smooth = zerofill(4)(Truncation((4, 4))(phantom((4, 60, 84), i) + 200))  # n, h, w; never negative
        save(tmp_path / "raw" / f"sub-{i}_T2w.nii.gz", np.moveaxis(smooth, 0, 2))
    options = PrepareOptions("td", (scale,), fourier_crop=False)
    made = prepare.prepare(tmp_path / "raw", tmp_path / "set", options, report=lambda _: None)
    low, high = data.Patches(made, "train", scale, seed=0).batch(0, range(40), 16)
    torch.testing.assert_close(high[..., ::scale, ::scale], low, atol=1e-4, rtol=0)


def test_scans_smaller_than_a_patch_are_left_out_or_refused(pairs: PreparedSet) -> None:
    patches = data.Patches(pairs, "train", 2, seed=0)
    with pytest.raises(BadInput, match="no training slice holds a patch of 64x64"):
        patches.batch(0, range(2), 64)


def test_rates_and_stages() -> None:
    paper = RECIPES["seran-x2-bd-paper"]
    assert [train.rate(paper, s) for s in (0, 99_999, 100_000)] == [1e-4, 1e-4, 5e-5]
    assert (paper.batch, paper.patch, paper.residual, paper.betas) == (96, 32, False, (0.9, 0.999))
    assert [train.rate(RECIPES["vdsr-x2-bd-paper"], s) for s in (2489, 2490, 9959)] == pytest.approx(
        [0.1, 0.01, 1e-4]
    )
    rates = [train.rate(TINY, s) for s in range(12)]
    assert rates[:3] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert train.stage(TINY, 7) == ("l1", 8, 4)
    assert train.stage(TINY, 8) == ("l2", 12, 2)


@pytest.mark.parametrize(
    ("name", "patches", "batch", "steps", "loss", "rates"),
    [
        ("srcnn", (17, 11, 8), 128, 6_250_000, "l2-sum", {0: 1e-4, 6_249_999: 1e-4}),
        ("vdsr", (21, 14, 10), 64, 9_960, "l2-sum", {0: 0.1, 2_490: 0.01, 4_980: 1e-3, 7_470: 1e-4}),
        ("idn", (29, 15, 11), 64, 600_000, "l1", {249_999: 1e-4, 250_000: 1e-5, 500_000: 1e-6}),
        ("rdn", (48, 32, 32), 16, 1_000_000, "l1", {199_999: 1e-4, 200_000: 5e-5, 800_000: 6.25e-6}),
        ("csn", (48, 48, 48), 16, 1_000_000, "l1", {199_999: 1e-4, 200_000: 5e-5, 800_000: 6.25e-6}),
        ("edsr", (32, 32, 32), 96, 200_000, "l1", {99_999: 1e-4, 100_000: 5e-5}),
        ("seran", (32, 32, 32), 96, 200_000, "l1", {99_999: 1e-4, 100_000: 5e-5}),
    ],
)
def test_the_published_numbers(
    name: str, patches: tuple[int, ...], batch: int, steps: int, loss: str, rates: dict[int, float]
) -> None:
    for scale, patch in zip((2, 3, 4), patches, strict=True):
        recipe = RECIPES[f"{name}-x{scale}-bd-paper"]
        assert (recipe.patch, recipe.last_patch, recipe.batch, recipe.steps) == (patch, patch, batch, steps)
        assert (recipe.loss, recipe.residual, recipe.tail, recipe.ema) == (loss, False, 0.0, 0.0)
        assert {s: train.rate(recipe, s) for s in rates} == pytest.approx(rates)


def test_an_epoch_of_a_thousand_steps_is_an_option() -> None:
    """As the docstring of `recipes.EDSR` says."""
    recipe = dataclasses.replace(RECIPES["seran-x2-bd-paper"], steps=400_000, step_every=200_000)
    assert {train.rate(recipe, s) for s in range(0, recipe.steps, 50_000)} == {1e-4, 5e-5}


def test_the_common_recipe_is_common() -> None:
    """Model and options apart, and whether bicubic is added around the network or within it."""
    for scale in (2, 3, 4):
        common = [r for name, r in RECIPES.items() if name.endswith(f"-x{scale}-bd")]
        own = [
            dataclasses.replace(r, model="", options={}, residual=r.residual or SYSTEMS[r.model].adds_bicubic)
            for r in common
        ]
        assert len(own) == len(recipes.VARIANTS)
        assert all(r == own[0] for r in own)
        assert {r.model for r in common} == set(networks())


def test_recipes_stay_what_they_are() -> None:
    """Runs are continued, and weights retrained, by these names; each line is the SHA-256 of all settings."""
    with (Path(__file__).parent / "recipes.csv").open(newline="") as file:
        known = {row["name"]: row["sha256"] for row in csv.DictReader(file)}
    texts = {name: json.dumps(dataclasses.asdict(r), sort_keys=True) for name, r in RECIPES.items()}
    assert {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()} == known


def test_every_published_recipe_takes_a_step(pairs: PreparedSet) -> None:
    """On a smaller network where the system's own is large; no parameter stays where it was."""
    small = {
        "vdsr": {"depth": 3, "width": 8},
        "rdn": {"blocks": 1, "layers": 1},
        "csn": {"units": 1, "width": 8},
    }
    patches = data.Patches(pairs, "train", 3, seed=0)
    for name in ("srcnn", "vdsr", "idn", "rdn", "csn"):
        recipe = RECIPES[f"{name}-x3-bd-paper"]
        made = Run(dataclasses.replace(recipe, options=small.get(name, {})))
        before = {k: v.clone() for k, v in made.network.state_dict().items()}
        for step in range(2):  # the second reaches what zero biases and tiny weights hid from the first
            low, high = patches.batch(step, range(2), 14)
            loss = train.LOSSES[recipe.loss](made.network(low), high)
            made.optimizer.zero_grad()
            loss.backward()
            for group in made.optimizer.param_groups:
                group["lr"] = train.rate(recipe, step) * group["factor"]
            train._clip(cpu(), made.network, made.optimizer, recipe, train.rate(recipe, step))
            made.optimizer.step()
        still = [k for k, v in made.network.state_dict().items() if torch.equal(v, before[k])]
        assert not still, (name, still)


def test_initializers() -> None:
    def spread(network: torch.nn.Module) -> float:
        layer = next(m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.in_channels == 64)
        assert float(layer.bias.detach().abs().max()) == 0
        return float(layer.weight.detach().std())

    he, xavier = (2 / (64 * 9)) ** 0.5, (2 / (128 * 9)) ** 0.5
    made = {k: Run(dataclasses.replace(RECIPES["vdsr-x2-bd"], initializer=k)) for k in INITIALIZERS}
    made["network"] = Run(RECIPES["vdsr-x2-bd"])
    for kind, expected in (("he", he), ("xavier", xavier), ("gaussian", 1e-3), ("network", he)):
        assert spread(made[kind].network) == pytest.approx(expected, rel=0.02)
    assert spread(build("idn", 2, {}, False).head) == pytest.approx(he, rel=0.02)
    split = build("csn", 2, {}, False).units[0].residual[0].weight.detach()
    assert float(split.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="needs /proc/cpuinfo to know what is native")
def test_mixed_precision_is_the_default_only_where_the_cpu_computes_it() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    has = {"avx512_bf16", "amx_bf16", "bf16"} & set(flags)
    assert train.native("cpu") == ("bf16-mixed" if has else "32-true")


def test_rates_optimiser_and_clipping_of_the_published_recipes() -> None:
    srcnn = Run(RECIPES["srcnn-x2-bd-paper"])
    assert isinstance(srcnn.optimizer, torch.optim.SGD)
    sizes = {g["factor"]: sum(p.numel() for p in g["params"]) for g in srcnn.optimizer.param_groups}
    assert sizes == {1.0: 24_513 - 801, 0.1: 801}
    idn = Run(RECIPES["idn-x2-bd-paper"])
    assert {g["factor"]: g["weight_decay"] for g in idn.optimizer.param_groups} == {1.0: 1e-4, 0.1: 1e-4}
    slow = {n for n, _ in idn.network.named_parameters() if n.startswith("tail.") or n.endswith(".bias")}
    slower = next(g["params"] for g in idn.optimizer.param_groups if g["factor"] == 0.1)
    assert {id(p) for p in slower} == {id(idn.network.get_parameter(n)) for n in slow}
    with pytest.raises(BadInput, match=r"no parameter of seran is named like \*\.bias2"):
        Run(dataclasses.replace(TINY, rates={"*.bias2": 0.1}))
    vdsr = RECIPES["vdsr-x2-bd-paper"]
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 9.0), torch.tensor([0.05, -7.0])
    train._clip(cpu(), layer, torch.optim.SGD(layer.parameters(), lr=0.1), vdsr, 0.1)
    assert layer.weight.grad.unique().tolist() == pytest.approx([0.1])
    assert layer.bias.grad.tolist() == pytest.approx([0.05, -0.1])


def test_the_sum_of_squares_is_caffes() -> None:
    made, true = torch.rand(3, 1, 4, 5), torch.rand(3, 1, 4, 5)
    expected = sum(float(((a - b) ** 2).sum()) for a, b in zip(made, true, strict=True)) / 6
    assert float(train.LOSSES["l2-sum"](made, true)) == pytest.approx(expected)


@pytest.mark.slow
def test_momentum_survives_a_pause(pairs: PreparedSet, tmp_path: Path) -> None:
    sgd = dataclasses.replace(
        TINY, optimizer="sgd", loss="l2-sum", lr=1e-4, clip_by="value", clip=1e-4, ema=0.0
    )
    whole = run(pairs, tmp_path / "whole", sgd)
    run(pairs, tmp_path / "paused", sgd, minutes=0)
    assert same(whole, run(pairs, tmp_path / "paused", sgd))


def test_shares_cover_a_batch_once(pairs: PreparedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = data.Patches(pairs, "train", 2, seed=0)
    draw, shares = patches.batch, []

    def noted(step: int, numbers: range, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        shares.append(list(numbers))
        return draw(step, numbers, size)

    monkeypatch.setattr(patches, "batch", noted)
    for batch, rank in ((4, 0), (4, 1), (5, 0), (5, 1)):
        train.Batches(patches, dataclasses.replace(TINY, batch=batch), rank, 2)[0]
    assert shares == [[0, 1], [2, 3], [0, 1, 2], [3, 4, 5]]


@pytest.mark.slow
def test_it_learns_and_logs(pairs: PreparedSet, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, steps=240, lr=1e-3, tail=0.0, patch=20, loss="l2")
    made = train.train(recipe, pairs, tmp_path, cpu("bf16-mixed"), every=80, validate_every=80, slices=2)
    psnr = [row["psnr_T1"] for row in made.rows]
    assert psnr[-1] > psnr[0] + 0.05
    assert made.rows[-1]["loss"] < made.rows[0]["loss"]
    assert made.rows[-1]["patches_per_s"] > 0
    text = (tmp_path / "log.csv").read_text().splitlines()
    assert text[0].startswith("step,loss,lr,patches_per_s")
    assert len(text) == 4
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_a_pause_changes_nothing(pairs: PreparedSet, tmp_path: Path) -> None:
    whole = run(pairs, tmp_path / "whole")
    halted = tmp_path / "halted"
    run(pairs, halted, dataclasses.replace(TINY, steps=6, schedule="step"))
    shorter = Run.load(halted / CHECKPOINT)
    assert shorter.step == 6
    paused = tmp_path / "paused"
    for step in (1, 2):
        assert run(pairs, paused, minutes=0).step == step
        assert Run.load(paused / CHECKPOINT).step == step
    again = run(pairs, paused)
    assert same(whole, again)
    assert [row["step"] for row in again.rows] == [1, 2, 3, 6, 9, 12]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_last_step(
    pairs: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It ends the step, says where, continues bit for bit; the signal then means what it meant before."""
    former, learn, step = signal.signal(number, signal.default_int_handler), train._learn, 4

    def interrupted(run: Run, *more: object) -> torch.Tensor:
        loss = learn(run, *more)
        if run.step == step:  # between two checkpoints; then the last, after which nothing is left to pause
            os.kill(os.getpid(), number)
        return loss

    monkeypatch.setattr(train, "_learn", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt, match=r"paused at step 4 of 12; the same command continues"):
            run(pairs, tmp_path / "paused")
        assert signal.getsignal(number) is signal.default_int_handler
        step = 12
        last = run(pairs, tmp_path / "last")
        assert (last.step, "psnr_T1" in last.rows[-1]) == (12, True)
    finally:
        signal.signal(number, former)
    monkeypatch.undo()
    assert Run.load(tmp_path / "paused" / CHECKPOINT).step == 4
    assert same(run(pairs, tmp_path / "whole"), run(pairs, tmp_path / "paused"))


def test_an_interrupted_command_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def methods() -> str:
        raise KeyboardInterrupt("run: paused at step 4 of 12")

    monkeypatch.setattr("seran.apps.methods.methods", methods)
    assert cli.run(["methods"]) == 130
    assert capsys.readouterr().err == "seran: run: paused at step 4 of 12\n"


def test_validation_is_beside_bicubic_and_before_the_first_step_of_fine_tuning(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Gains are over bicubic on the same slices; at step 0 the PSNR is that of the weights it began with."""
    recipe = Recipe("srcnn", 2, init="srcnn-x2-bd", residual=True, patch=8, batch=2, steps=2, lr=1e-9)
    made = train.train(recipe, pairs, tmp_path, cpu(), every=1, validate_every=2, slices=2)
    said = capsys.readouterr().out
    (volume,) = pairs.pick("val")
    at = [round((i + 1) * (volume.shape[0] - 1) / 3) for i in range(2)]
    methods = {name: method(name, 2, engine=Engine(precision="f32")) for name in ("bicubic", "srcnn")}
    psnr = {name: evaluate.psnr(m.predict, pairs, volume, 2, at) for name, m in methods.items()}
    first, quiet, last = made.rows
    assert first["step"] == 0
    assert set(first) == {"step", "psnr_T1", "gain_T1"}
    assert first["psnr_T1"] == pytest.approx(psnr["srcnn"], abs=0.02)
    assert first["gain_T1"] == pytest.approx(psnr["srcnn"] - psnr["bicubic"], abs=0.02)
    assert last["gain_T1"] == pytest.approx(first["gain_T1"], abs=0.02)
    assert "psnr_T1" not in quiet
    assert f"step 0: T1 {first['psnr_T1']:.3f} dB ({first['gain_T1']:+.3f} over bicubic)" in said
    head, zero, *_ = (tmp_path / "log.csv").read_text().splitlines()
    assert head == "step,loss,lr,patches_per_s,psnr_T1,gain_T1"
    assert zero.startswith("0,,,,")
    again = train.train(dataclasses.replace(recipe, steps=3), pairs, tmp_path, cpu(), every=1, slices=2)
    assert [row["step"] for row in again.rows] == [0, 1, 2, 3]
    assert again.inherited == weights.read(weights.shipped()["srcnn-x2-bd"]).card.seconds
    assert again.inherited < again.seconds < again.inherited + 60


def test_without_validation_scans_it_says_so(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = dataclasses.replace(pairs, volumes=pairs.pick("train"))
    run(trained, tmp_path, dataclasses.replace(TINY, steps=2))
    said = capsys.readouterr().out
    assert "no scan of the split val; nothing is validated" in said
    assert "step 2: " not in said


@pytest.mark.slow
def test_quiet_training_says_nothing(pairs: PreparedSet, tmp_path: Path) -> None:
    """Nor does Lightning, which tells the precision."""
    words = ["-m", "seran", "train", "srcnn-x2-bd", str(pairs.root), str(tmp_path / "run"), "--quiet"]
    words += ["--patch", "8", "--last-patch", "8", "--steps", "2", "--precision", "bf16-mixed"]
    assert finish(start([*words, "--accelerator", "cpu"])) == ""


def test_the_minutes_are_those_of_the_run() -> None:
    assert minutes(66, 0) == "1.1 minutes"
    assert minutes(66 + 24480, 24480) == "1.1 minutes (409.1 with the weights it began with)"
    assert minutes(24546, None) == "409.1 minutes with the weights it began with"


def test_runs_of_earlier_versions_go_on(pairs: PreparedSet, tmp_path: Path) -> None:
    """They do not state what of their seconds is of the weights that they began with."""
    recipe = dataclasses.replace(TINY, steps=1)
    made = run(pairs, tmp_path, recipe)
    path = tmp_path / CHECKPOINT
    with safe_open(path, "pt") as file:
        meta, held = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = json.loads(meta["state"])
    assert state.pop("inherited_seconds") == 0
    path.write_bytes(save_tensors(held, {**meta, "state": json.dumps(state)}))
    assert (Run.load(path).inherited, same(Run.load(path), made)) == (0, True)
    tuned = {**meta, "state": json.dumps(state)}
    tuned["recipe"] = json.dumps({**json.loads(meta["recipe"]), "init": "seran-x2-bd"})
    path.write_bytes(save_tensors(held, tuned))
    assert Run.load(path).inherited is None


def test_the_average_soon_forgets_the_initialisation() -> None:
    """A plain mean until that is 1/(1 - decay) long, an exponential one from then on."""
    update = partial(_average, 0.75)
    value = [torch.tensor(100.0)]
    expected = 100.0
    for n, new in enumerate([10.0, 20.0, 60.0, 8.0, 4.0], start=1):
        update(value, [torch.tensor(new)], torch.tensor(n))
        keep = min(0.75, n / (n + 1))
        expected = keep * expected + (1 - keep) * new
        assert float(value[0]) == pytest.approx(expected)
    assert expected == pytest.approx((100 + 10 + 20 + 60) / 4 * 0.75**2 + 8 * 0.25 * 0.75 + 4 * 0.25)


def test_another_recipe_does_not_continue_a_run(pairs: PreparedSet, tmp_path: Path) -> None:
    run(pairs, tmp_path)
    with pytest.raises(BadInput, match=r"another recipe \(lr differ\)"):
        run(pairs, tmp_path, dataclasses.replace(TINY, lr=1e-5))
    longer = run(pairs, tmp_path, dataclasses.replace(TINY, steps=15))
    assert longer.step == 15


def test_data_of_another_degradation_are_refused(pairs: PreparedSet, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds bd pairs, the recipe wants td"):
        run(pairs, tmp_path, dataclasses.replace(TINY, degradation="td"))
    with pytest.raises(BadInput, match="prepared without x4"):
        run(pairs, tmp_path, dataclasses.replace(TINY, scale=4))


WORKER = """
import functools, sys
from seran import cli, train
from seran.recipes import RECIPES
from tests.test_train import TINY
if __name__ == "__main__":
    RECIPES["tiny"] = TINY
    train.train = functools.partial(train.train, every=3, slices=1)
    sys.exit(cli.run(["train", "tiny", *sys.argv[1:]]))
"""
"""`seran train` with a small recipe, and checkpoints that come soon."""


def command(tmp_path: Path, pairs: PreparedSet, out: str, devices: int, *more: object) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    options = ["--accelerator", "cpu", "--precision", "32-true", "--threads", 1, "--validate-every", 6]
    words = [script, pairs.root, tmp_path / out, "--devices", devices, *options, *more]
    return [str(word) for word in words]


def start(words: list[str], **variables: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}", **variables}
    return subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[bytes]) -> str:
    text = process.communicate(timeout=400)[0].decode()
    assert process.returncode == 0, text
    return text


def until_there(checkpoint: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)


AHEAD = """
import sys
from pathlib import Path
from seran.data.pairs import load_prepared
from tests.test_train import TINY, dataclasses, run, same

def main():
    pairs, out = load_prepared(Path(sys.argv[1])), Path(sys.argv[2])
    recipe = dataclasses.replace(TINY, augment=0.5)
    paused = run(pairs, out / "ahead", recipe, minutes=0, workers=2).step
    ahead = run(pairs, out / "ahead", recipe, workers=2)
    print(paused, ahead.step, same(ahead, run(pairs, out / "here", recipe)))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_patches_drawn_by_other_processes_are_the_same(pairs: PreparedSet, tmp_path: Path) -> None:
    """As beside a GPU, with a pause in between."""
    script = tmp_path / "ahead.py"
    script.write_text(AHEAD)
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(script), str(pairs.root), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 12 True"


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(pairs: PreparedSet, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    process = start(command(tmp_path, pairs, "killed", 1))
    checkpoint = tmp_path / "killed" / CHECKPOINT
    until_there(checkpoint, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    at = Run.load(checkpoint).step
    assert 0 < at < TINY.steps, "killed too late to show anything"
    torch.set_num_threads(1)
    try:
        assert same(run(pairs, tmp_path / "killed"), run(pairs, tmp_path / "whole"))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_two_processes_equal_one(pairs: PreparedSet, tmp_path: Path) -> None:
    """DDP over gloo: half the batch each, the same parameters within 1e-5."""
    for out, devices in (("one", 1), ("two", 2)):
        finish(start(command(tmp_path, pairs, out, devices)))
    one, two = (Run.load(tmp_path / out / CHECKPOINT) for out in ("one", "two"))
    assert one.step == two.step == TINY.steps
    close(one, two)


def children(parent: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the sockets of a run in /proc")
def test_processes_of_one_machine_listen_to_nobody_else(pairs: PreparedSet, tmp_path: Path) -> None:
    seen: set[tuple[str, int]] = set()
    with start(command(tmp_path, pairs, "run", 2), TMPDIR=str(tmp_path)) as first:
        while first.poll() is None:
            with contextlib.suppress(OSError):  # it ends meanwhile
                seen = seen.union(*map(listening, [first.pid, *children(first.pid)]))
            time.sleep(0.01)
        assert finish(first)
    assert seen
    assert {address for address, _ in seen} <= LOOPBACK
    assert not list(tmp_path.glob("seran-*"))


@pytest.fixture(scope="module")
def undisturbed(pairs: PreparedSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two dozen steps of two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(start(command(folder, pairs, "run", 2, "--steps", 24)))
    return Run.load(folder / "run" / CHECKPOINT)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_is_killed(
    pairs: PreparedSet, tmp_path: Path, undisturbed: Run, rank: int
) -> None:
    """The other one ends, with an error; the same command continues as if nothing had happened."""
    words = command(tmp_path, pairs, "run", 2, "--steps", 24)
    first = start(words)
    checkpoint = tmp_path / "run" / CHECKPOINT
    until_there(checkpoint, first)
    (second,) = children(first.pid)
    os.kill((first.pid, second)[rank], signal.SIGKILL)
    text = first.communicate(timeout=60)[0].decode()  # ends when no process holds the pipe any more
    deadline = time.monotonic() + 60
    while runs(second):
        assert time.monotonic() < deadline, "the other process hangs"
        time.sleep(0.05)
    assert first.returncode == (-signal.SIGKILL, 2)[rank], text
    assert "seran: another process of this run has ended; the same command continues" in text
    assert "Traceback" not in text
    assert 0 < Run.load(checkpoint).step < 24, "killed too late to show anything"
    finish(start(words))
    again = Run.load(checkpoint)
    assert again.step == 24
    assert same(again, undisturbed)
    assert not list((tmp_path / "run").glob(".part-*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_two_machines(pairs: PreparedSet, tmp_path: Path, undisturbed: Run, launcher: str) -> None:
    """Two machines make what two processes make, within rounding; both are this one, SLURM its variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = command(tmp_path, pairs, "run", 1, "--nodes", 2, "--steps", 24)
    if launcher == "torchrun":
        how = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1"]
        nodes = [start([*how, f"--master-port={port}", f"--node-rank={i}", *words]) for i in range(2)]
    else:
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}
        job |= {"SLURM_NTASKS_PER_NODE": "1", "SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1"}
        job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        nodes = [start(words, **job, SLURM_PROCID=str(i), SLURM_NODEID=str(i)) for i in range(2)]
    for node in nodes:
        finish(node)
    made = Run.load(tmp_path / "run" / CHECKPOINT)
    assert made.step == 24
    close(made, undisturbed)


@pytest.mark.slow
def test_export_and_back(pairs: PreparedSet, tmp_path: Path) -> None:
    made = run(pairs, tmp_path / "run")
    path = tmp_path / "tiny.onnx"
    card = export(made, path, "a test machine", "notes")
    assert card.export_error < 2e-4
    assert (card.model, card.scale, card.anchor, card.residual) == ("seran", 2, "corner", True)
    assert card.patches == 8 * 4 + 4 * 2
    assert {row["contrast"] for row in card.data} == {"T1", "T2"}
    assert sum(row["scans"] for row in card.data) == len(pairs.pick("train"))
    assert card.scans == pairs.scans("train")
    assert set(card.validation) == {pairs.pick("val")[0].contrast}
    assert weights.read(path).card == card
    back = network(weights.read(path))
    for key, value in made.best.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_a_module_comes_back_as_the_page_says(
    pairs: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From weights and from a run; and the page has every field of a manifest."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    made = run(pairs, tmp_path / "run", dataclasses.replace(TINY, steps=1))
    shutil.copy(weights.shipped()["srcnn-x2-bd"], tmp_path / "mine.onnx")
    monkeypatch.chdir(tmp_path)
    held: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], held)
    low = torch.rand(1, 1, 12, 14)
    assert held["module"](low).shape == (1, 1, 24, 28)
    assert torch.equal(held["best"](low), made.best.eval()(low))
    stated = json.loads((pairs.root / "manifest.json").read_text())
    fields = {*stated, *stated["volumes"][0]}
    assert not [name for name in fields if f"`{name}`" not in page]


@pytest.mark.slow
def test_fine_tuning_starts_from_a_weights_file(pairs: PreparedSet, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    export(run(pairs, tmp_path / "run"), path)
    tuned = Run(dataclasses.replace(TINY, init=str(path), seed=99))
    expected = network(weights.read(path)).state_dict()
    for key, value in tuned.network.state_dict().items():
        assert torch.equal(value, expected[key])
    assert tuned.patches == 8 * 4 + 4 * 2
    assert tuned.seconds > 0
    assert tuned.scans == pairs.scans("train")
    shipped = Run(Recipe("seran", 2, residual=True, init="seran-x2-bd"))
    assert shipped.patches > 50_000
    assert len(shipped.scans) > 30
    assert Run(dataclasses.replace(TINY, init="moved.onnx"), fresh=False).step == 0
    narrow = {"width": 8, "depth": 2, "positions": [2]}
    for scale in (2, 3):
        with pytest.raises(BadInput, match="holds another network"):
            Run(dataclasses.replace(TINY, init=str(path), options=narrow, scale=scale))


def test_a_checkpoint_that_is_cut_or_lies_is_one_line(
    pairs: PreparedSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty, cut, of something else; recipe, state or tensors that cannot be."""
    made = run(pairs, tmp_path / "run", dataclasses.replace(TINY, steps=2))
    path = tmp_path / "run" / CHECKPOINT
    whole = path.read_bytes()
    with safe_open(path, "pt") as file:
        meta, held = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state, recipe = json.loads(meta["state"]), json.loads(meta["recipe"])
    first = next(name for name in held if name.startswith("optimizer.0.exp"))
    wrong = [
        b"", b"x", whole[:7], whole[:200], whole[:-1], whole + b"x", save_tensors(held),
        save_tensors(held, {**meta, "state": '{"a":' * 100_000}),
        save_tensors(held, {**meta, "recipe": "[]"}),
        save_tensors(held, {**meta, "recipe": json.dumps({**recipe, "batch": "many"})}),
        *(save_tensors(held, {**meta, "state": json.dumps({**state, name: value})})
          for name, value in (("step", "2"), ("rows", [1]), ("scans", {}), ("seconds", 10**400))),
        save_tensors({k: v for k, v in held.items() if not k.startswith("network")}, meta),
        save_tensors({**held, first: torch.zeros(3)}, meta),
        save_tensors({**held, "optimizer.999.exp_avg": torch.zeros(3)}, meta),
    ]  # fmt: skip
    capsys.readouterr()
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"expected a checkpoint of `seran train`, whole"):
            Run.load(path)
        assert cli.run(["export", str(tmp_path / "run"), str(tmp_path / "a.onnx")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    path.write_bytes(whole)
    assert same(Run.load(path), made)


@pytest.mark.slow
def test_what_is_shared_names_no_folder(pairs: PreparedSet, tmp_path: Path) -> None:
    """Neither in a checkpoint nor in weights; earlier checkpoints are continued, and lose them."""
    start = tmp_path / "ada" / "start.onnx"
    start.parent.mkdir()
    made = run(pairs, tmp_path / "run", dataclasses.replace(TINY, steps=1))
    export(made, start)
    recipe = dataclasses.replace(TINY, steps=1, init=str(start))
    words = f"seran train tiny {tmp_path}/ada/pairs run --init {start}"
    again = train.train(recipe, pairs, tmp_path / "again", cpu(), command=words)
    again.save(tmp_path / "again" / CHECKPOINT)
    settings = {**recipes.stated(recipe), "init": str(start)}
    assert recipes.differences(recipe, settings) == []
    loaded = Run.load(tmp_path / "again" / CHECKPOINT)
    assert (loaded.command, loaded.recipe.init) == (
        "seran train tiny pairs run --init start.onnx",
        "start.onnx",
    )
    export(loaded, tmp_path / "again.onnx")
    loaded.save(tmp_path / "again" / CHECKPOINT)
    for file in (tmp_path / "again.onnx", tmp_path / "again" / CHECKPOINT):
        assert b"/ada/" not in file.read_bytes()


OWN = """
from torch import nn


class Net(nn.Module):
    def __init__(self, scale, width=8):
        super().__init__()
        layers = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        self.body = nn.Sequential(*layers, nn.Conv2d(width, scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x):
        return self.body(x)


class Same(Net):
    def forward(self, x):
        return x


class Scaleless(nn.Module):
    def __init__(self):
        super().__init__()


class Failing(Net):
    def forward(self, x):
        return self.missing(x)


class Bare(nn.Identity):
    def __init__(self, scale):
        super().__init__()


class SERAN(Net):
    pass
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A file with networks of a user's own, whose entries are gone afterwards."""
    before = dict(SYSTEMS)
    (tmp_path / "my.py").write_text(OWN)
    yield tmp_path / "my.py"
    SYSTEMS.clear()
    SYSTEMS.update(before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my.py:Same", r"low \(2, 1, 11, 14\) must become high \(2, 1, 22, 28\), got \(2, 1, 11, 14\)"),
        ("my.py:Scaleless", r"scaleless cannot be made with scale 2 and options {}: .*unexpected keyword"),
        ("my.py:Failing", "AttributeError: 'Failing' object has no attribute 'missing'"),
        ("my.py:Bare", "must be a torch.nn.Module with parameters"),
        (
            "my.py:Nobody",
            "no class Nobody; it has Net, Same, Scaleless, Failing, Bare, SERAN$",
        ),
        ("my.py:", "my.py:: must be FILE.py:CLASS"),
        ("my.py:SERAN", "seran is a method of seran; give the class another name"),
        ("my.py", "my.py: must be FILE.py:CLASS with a file that exists"),
        ("your.py:Net", "your.py:Net: must be FILE.py:CLASS with a file that exists"),
    ],
)
def test_what_is_no_network_is_refused(own: Path, name: str, said: str) -> None:
    before = dict(SYSTEMS)
    with pytest.raises(BadInput, match=said):
        adopt(str(own.with_name(name)), 2, {})
    assert before == SYSTEMS


@pytest.mark.slow
def test_a_network_of_ones_own_from_its_file_to_a_scan(
    pairs: PreparedSet, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of seran is edited; without its file named again, its code is not run again."""

    def seran(*words: object) -> tuple[int, str]:
        status = cli.run([str(word) for word in words])
        SYSTEMS.pop("net", None)  # as in another process
        return status, capsys.readouterr().err

    threads, out, file = torch.get_num_threads(), tmp_path / "run", tmp_path / "mine.onnx"
    words = ["train", "seran-x2-bd", pairs.root, out, "--model", f"{own}:Net", "--options", '{"width": 6}']
    words += ["--patch", 8, "--last-patch", 8, "--batch", 2, "--accelerator", "cpu", "--precision", "32-true"]
    for steps in (2, 3):
        assert seran(*words, "--steps", steps)[0] == 0
    own.write_text(OWN + "# another line")
    changed = "my.py has changed since this run began; put that file back, or name another folder than"
    assert changed in seran(*words, "--steps", 4)[1]
    own.write_text(OWN)
    torch.set_num_threads(threads)
    status, said = seran("export", out, file)
    assert (status, "is of my.py:Net sha256:" in said) == (2, True)
    own.write_text(OWN + "print('changed')")
    status, said = seran("export", out, file, "--model", f"{own}:Net")
    assert (status, "my.py has changed since this run began; give that very file again" in said) == (2, True)
    own.write_text(OWN)
    assert seran("export", out, file, "--model", f"{own}:Net")[0] == 0
    card = weights.read(file).card
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    assert (card.model, card.recipe["source"]) == ("net", f"my.py:Net sha256:{digest}")

    trained = Run.load(out / CHECKPOINT, f"{own}:Net")
    assert trained.step == 3
    low = np.random.default_rng(0).random((3, 17, 22), dtype=np.float32)
    with torch.inference_mode():
        expected = trained.best.half().float().eval()(torch.from_numpy(low)[:, None])[:, 0].numpy()
    tuned = Run(dataclasses.replace(trained.recipe, init=str(file), seed=9))
    assert all(torch.equal(v, trained.best.state_dict()[k]) for k, v in tuned.network.named_parameters())
    own.unlink()
    SYSTEMS.pop("net")
    made = method("net", 2, file=file, engine=Engine(precision="f32")).predict(low)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    with pytest.raises(BadInput, match="its weights run on the CPU"):
        network(weights.read(file))
    status = cli.run([str(word) for word in ("evaluate", pairs.root, "--weights", file, "--split", "val")])
    assert (status, "| T1 | 1 | net |" in capsys.readouterr().out) == (0, True)
    scan = pairs.root.parent / "raw" / "sub-2_T2w.nii.gz"
    how = ("--method", "net", "--weights", file, "--strict", "off")
    assert seran("upscale", scan, tmp_path / "fine.nii", *how)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", [3, 4])
def test_another_scale_starts_from_all_but_the_upsampling(
    pairs: PreparedSet, tmp_path: Path, scale: int
) -> None:
    path = tmp_path / "tiny.onnx"
    export(run(pairs, tmp_path / "run"), path)
    fresh = Run(dataclasses.replace(TINY, scale=scale, seed=99)).network.state_dict()
    tuned = Run(dataclasses.replace(TINY, scale=scale, seed=99, init=str(path))).network.state_dict()
    given = network(weights.read(path)).state_dict()
    own = {k for k, v in tuned.items() if k not in given or v.shape != given[k].shape}
    assert own
    assert all(k.startswith("network.up.") for k in own)
    for key, value in tuned.items():
        assert torch.equal(value, fresh[key] if key in own else given[key])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(24, 32), (33, 20), (61, 47), (5, 9)])
def test_every_runtime_gives_torchs_result(
    pairs: PreparedSet, tmp_path: Path, shape: tuple[int, int]
) -> None:
    """OpenVINO, ONNX Runtime and torch from one file, on sizes the exporter never saw."""
    import onnxruntime

    from seran.engines import Engine, openvino
    from seran.engines import torch as pytorch

    path = tmp_path / "tiny.onnx"
    export(run(pairs, tmp_path / "run"), path)
    held = weights.read(path)
    low = np.random.default_rng(0).random((3, *shape), dtype=np.float32)
    expected = pytorch.load(held, Engine("cpu", "f32")).predict(low)
    made = openvino.load(held, Engine(precision="f32", threads=2), direct=True).predict(low)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    session = onnxruntime.InferenceSession(held.data, providers=["CPUExecutionProvider"])
    made = session.run(None, {"low": low[:, None]})[0][:, 0]
    np.testing.assert_allclose(made, expected, atol=1e-4)
