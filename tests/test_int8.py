"""Convolutions in 8 bits: what they cost, what they need, and that nothing else changes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from seran import calibrate, cli, files, io, sharpen, weights
from seran.data import prepare
from seran.data.pairs import PreparedSet
from seran.degrade import DEGRADATIONS
from seran.engines import Engine, int8
from seran.engines.runtime import ov
from seran.errors import BadInput
from seran.methods import Method, method
from seran.quality import metrics
from tests.conftest import phantom
from tests.test_prepare import save


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    root = tmp_path_factory.mktemp("pairs")
    for i in range(2):
        save(root / f"{i}.nii.gz", phantom((50, 75, 9), i))
    lines = ["split,path,contrast,subject", *(f"val,{i}.nii.gz,T2,s{i}" for i in range(2))]
    (root / "list.csv").write_text("\n".join(lines))
    return prepare.prepare(
        root / "list.csv", root / "set", prepare.PrepareOptions(scales=(2,)), report=lambda _: None
    )


@pytest.fixture
def vdsr(tmp_path: Path) -> Path:
    """Weights of a network of 18 large convolutions, not calibrated."""
    return Path(shutil.copy(weights.shipped()["vdsr-x2-bd"], tmp_path / "vdsr.onnx"))


def test_a_calibrated_file_has_bounds_and_the_same_weights(pairs: PreparedSet, vdsr: Path) -> None:
    before = weights.read(vdsr)
    assert not before.evidence.ranges
    assert cli.run(["calibrate", str(vdsr), str(pairs.root)]) == 0
    after = weights.read(vdsr)
    assert after.evidence.int8_loss <= calibrate.MOST
    names = [name for name, _ in int8.convolutions(ov.Core().read_model(after.data))]
    assert set(after.evidence.ranges) <= set(names)
    assert len(names) == 18
    assert (after.digest, after.card) == (before.digest, before.card)
    assert after.evidence.spacings == before.evidence.spacings
    assert after.evidence.scores == before.evidence.scores
    sealed = before.data.index(b"seran.evidence") - 10
    assert after.data[:sealed] == before.data[:sealed]
    low = np.asarray(pairs.low(pairs.volumes[0], 2)[:3], np.float32) / pairs.volumes[0].unit["2"][1]
    exact, coarse = (method("vdsr", 2, file=vdsr, engine=Engine(precision=kind)) for kind in ("f32", "int8"))
    assert coarse.precision == "int8"
    off = np.abs(coarse.predict(low) - exact.predict(low))
    assert 1e-5 < off.max() < 0.05


def test_what_costs_too_much_is_refused(
    pairs: PreparedSet, vdsr: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files.sha256(vdsr)
    monkeypatch.setattr(calibrate, "MOST", -10.0)
    with pytest.raises(BadInput, match=r"8 bits cost .* dB on .*, expected at most -10.0"):
        calibrate.calibrate(vdsr, pairs)
    assert files.sha256(vdsr) == before


def test_it_needs_calibrated_weights_and_a_cpu(vdsr: Path) -> None:
    with pytest.raises(BadInput, match="run `seran calibrate`"):
        method("vdsr", 2, file=vdsr, engine=Engine(precision="int8"))
    with pytest.raises(BadInput, match="--precision int8: is for the CPU"):
        method("vdsr", 2, file=vdsr, engine=Engine("cuda", "int8"))


def test_calibrating_again_measures_again(pairs: PreparedSet, vdsr: Path) -> None:
    first = calibrate.calibrate(vdsr, pairs)
    assert calibrate.calibrate(vdsr, pairs) == first


def test_other_pairs_are_refused(pairs: PreparedSet, vdsr: Path, tmp_path: Path) -> None:
    options = prepare.PrepareOptions("td", (2,))
    other = prepare.prepare(pairs.root.parent / "list.csv", tmp_path / "td", options, report=lambda _: None)
    with pytest.raises(BadInput, match="holds td pairs"):
        calibrate.calibrate(vdsr, other)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["ds000011_sub-10_inplaneT2", "openms_patient04_study1_T1W"])
def test_the_shipped_networks_lose_little(shared: Path, name: str, scale: int) -> None:
    """On validation scans, other slices than those that were measured among them."""
    data = io.read(shared / "val" / f"{name}.nii.gz").data
    n = data.shape[2]
    truth = np.moveaxis(data, 2, 0)[n // 3 : n // 3 + 6]
    truth = np.ascontiguousarray(truth[:, : truth.shape[1] // 12 * 12, : truth.shape[2] // 12 * 12])
    low, span = DEGRADATIONS["bd"]((scale, scale))(truth), float(np.ptp(truth))

    def score(chosen: Method) -> float:
        return metrics.psnr(truth, sharpen.sharpen(low, chosen).image, span)

    exact = score(method("seran", scale, engine=Engine(precision="f32")))
    assert score(method("seran", scale, engine=Engine(precision="int8"))) > exact - 0.03
