"""The shipped network on its engines: precision, memory, slices in their order."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from seran import io, sharpen, weights
from seran.degrade import Bicubic
from seran.engines import Engine, Lane, openvino, predictor
from seran.engines import torch as pytorch
from seran.errors import BadInput
from seran.machine import has_bf16
from seran.methods import Method, method
from seran.quality import metrics


def alone(code: str, *words: object, **environment: str) -> str:
    """What a process of its own prints; other tests do without MNN, see `tests.conftest.without_mnn`."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ds000011_sub-10_inplaneT2", "openms_patient04_study1_T1W"])
def test_bf16_costs_less_than_a_fiftieth_of_a_decibel(shared: Path, name: str) -> None:
    """On validation scans, against the same network in float32."""
    if openvino.native() != "bf16":
        pytest.skip("this CPU does not compute bf16 natively, so it is not used here")
    data = io.read(shared / "val" / f"{name}.nii.gz").data
    n = data.shape[2]
    truth = np.moveaxis(data, 2, 0)[n // 3 : n // 3 + 6]
    truth = np.ascontiguousarray(truth[:, : truth.shape[1] // 2 * 2, : truth.shape[2] // 2 * 2])
    low, span = Bicubic((2, 2))(truth), float(np.ptp(truth))

    def score(chosen: Method) -> float:
        return metrics.psnr(truth, sharpen.sharpen(low, chosen).image, span)

    exact = score(method("seran", 2, engine=Engine(precision="f32")))
    assert exact > score(method("bicubic", 2)) + 2
    assert score(method("seran", 2, engine=Engine(precision="bf16"))) > exact - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE", "AVX512_CORE_BF16"])
def test_fewer_instructions_make_the_same_slice(isa: str, tmp_path: Path) -> None:
    """A cap on oneDNN's instruction set is obeyed, by the choice of the precision too."""
    low = np.random.default_rng(0).random((1, 33, 28), dtype=np.float32)
    np.save(tmp_path / "low.npy", low)
    shown = alone(CAPPED, tmp_path, "auto", ONEDNN_MAX_CPU_ISA=isa).split()
    if isa != "AVX512_CORE_BF16":
        assert shown == ["f32", "MNN"]
    made = np.load(tmp_path / "high.npy")
    alone(CAPPED, tmp_path, "f32")
    expected = np.load(tmp_path / "high.npy")
    np.testing.assert_allclose(made, expected, atol=1e-4 if "f32" in shown else 0.05)


CAPPED = """
import sys
import numpy as np
from seran.engines import Engine
from seran.methods import method
found = method("seran", 2, engine=Engine(precision=sys.argv[2], threads=2))
np.save(sys.argv[1] + "/high.npy", found.predict(np.load(sys.argv[1] + "/low.npy")))
print(found.precision, found.engine.split()[0])
"""


WINOGRAD = """
import sys
import numpy as np
from seran import weights
from seran.engines import Engine, openvino
held, engine = weights.read(weights.shipped()[sys.argv[1]]), Engine(precision="f32", threads=2)
direct, by_parts = openvino.load(held, engine, direct=True), openvino.load(held, engine)
assert (by_parts.engine.split()[0], direct.engine.split()[0]) == ("MNN", "OpenVINO")
rng = np.random.default_rng(3)
for shape in [(3, 52, 37), (1, 5, 61), (2, 52, 37), (1, 3, 3)]:
    low = rng.random(shape, dtype=np.float32)
    made, expected = by_parts.predict(low), direct.predict(low)
    assert not np.array_equal(made, expected)
    np.testing.assert_allclose(made, expected, atol=1e-3)
    assert np.sqrt(np.mean((made - expected) ** 2)) < 5e-5
print("alike")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seran-x2-bd", "seran-x3-bd", "seran-x4-bd", "fast-x2-bd", "fast-x4-bd"])
def test_winograd_makes_what_openvino_makes(name: str) -> None:
    """Slices of several sizes in turn, against direct convolutions; intensities of about [0, 1]."""
    assert alone(WINOGRAD, name) == "alike\n"


CHOSEN = """
from seran.engines import mnn
from seran.engines import Engine
from seran.methods import method
most = mnn.MOST_THREADS
for name, precision, threads in [
    ("seran", "f32", most), ("seran", "f32", most + 1), ("seran", "bf16", 2), ("vdsr", "f32", 2),
    ("fast", "f32", most),
]:
    print(method(name, 2, engine=Engine(precision=precision, threads=threads)).engine.split()[0])
"""


def test_winograd_is_for_float32_and_few_threads() -> None:
    """And for networks with a part of their input's size, which VDSR has not."""
    assert alone(CHOSEN).split() == ["MNN", "OpenVINO", "OpenVINO", "OpenVINO", "MNN"]


REFUSED = """
import numpy as np
from seran.engines import mnn
try:
    mnn.trunk(b"not a network", "features", 1)[0](np.zeros((1, 1, 8, 8), np.float32))
except RuntimeError as error:
    print(error)
"""


def test_what_mnn_cannot_convert_is_said() -> None:
    assert alone(REFUSED) == "MNN could not convert the network\n"


THREADS = """
import threading
import numpy as np
from seran.engines import Engine
from seran.methods import method
low = np.random.default_rng(0).random((1, 20, 24), dtype=np.float32)
made = []
def run():
    made.append(method("seran", 2, engine=Engine(precision="f32", threads=1)).predict(low))
threads = [threading.Thread(target=run) for _ in range(6)]
[t.start() for t in threads], [t.join() for t in threads]
print(all(np.array_equal(m, made[0]) for m in made), len(made))
"""


@pytest.mark.slow
def test_threads_that_load_mnn_at_once_leave_the_standard_output() -> None:
    assert alone(THREADS) == "True 6\n"


MEMORY = """
import resource, sys
import numpy as np
from seran.sharpen import sharpen
from seran.engines import Engine
from seran.methods import method
stack = np.random.default_rng(0).random((int(sys.argv[1]), 48, 56), dtype=np.float32)
sharpen(stack, method("seran", 2, engine=Engine(threads=2)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_slices_beyond_the_result() -> None:
    def peak(slices: int) -> float:
        return int(alone(MEMORY, slices)) / 1024

    few, many = peak(8), peak(160)
    result = (160 - 8) * 4 * 48 * 56 * 4 / 2**20
    assert many - few < 6 * result + 60, f"{few:.0f} MiB became {many:.0f} MiB for {result:.0f} MiB of result"


@pytest.mark.parametrize("slices", [1, 2, 3, 7])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_slices_come_back_in_order(slices: int, threads: int) -> None:
    low = np.random.default_rng(1).random((slices, 12, 15), dtype=np.float32)
    predict = method("seran", 2, engine=Engine(precision="f32", threads=threads)).predict
    alone = np.concatenate([predict(one[None]) for one in low])
    np.testing.assert_allclose(predict(low), alone, atol=1e-5)


@pytest.mark.parametrize("slices", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_lanes_take_turns_and_slices_come_back_in_order(slices: int, batch: int) -> None:
    """As on a GPU, where each of two lanes has memory of its own, which its next start overwrites."""

    def lane() -> Lane:
        made = np.full((batch, 24, 30), np.nan, np.float32)

        def start(low: np.ndarray) -> int:
            assert low.flags.c_contiguous
            made[: len(low)] = low[:, 0].repeat(2, 1).repeat(2, 2)
            return len(low)

        return Lane(start, lambda n: made[:n])

    low = np.random.default_rng(1).random((slices, 12, 15), dtype=np.float32)
    for count in (1, 2):
        turns = [lane() for _ in range(count)]
        high = predictor((2, 2), lambda h, w, turns=turns: (turns, batch))(low)
        np.testing.assert_array_equal(high, low.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_pytorch_makes_what_openvino_makes(precision: str) -> None:
    low = np.random.default_rng(2).random((3, 20, 26), dtype=np.float32)
    held = weights.read(weights.shipped()["seran-x2-bd"])
    expected = method("seran", 2, engine=Engine(precision="f32")).predict(low)
    made = pytorch.load(held, Engine("cpu", precision)).predict(low)
    np.testing.assert_allclose(made, expected, atol=1e-4 if precision == "f32" else 0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU of NVIDIA's")
@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_recorded_graphs_make_the_same_slices(
    scale: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that are full and one that is not, two shapes in turn, on the GPU and slice by slice here."""
    held = weights.read(weights.shipped()[f"seran-x{scale}-bd"])
    monkeypatch.setattr(pytorch, "PIXELS", 5 * scale**2 * 40 * 50)
    predict = pytorch.load(held, Engine("cuda", precision)).predict
    exact = pytorch.load(held, Engine("cpu", "f32")).predict
    for shape in ((17, 40, 50), (3, 33, 28), (17, 40, 50)):
        low = np.random.default_rng(2).random(shape, dtype=np.float32)
        np.testing.assert_allclose(predict(low), exact(low), atol=1e-2 if precision == "f32" else 0.05)


@pytest.mark.parametrize("engine", [openvino, pytorch])
def test_threads_wait_for_each_other(engine: ModuleType) -> None:
    held = weights.read(weights.shipped()["seran-x2-bd"])
    predict = engine.load(held, Engine("cpu", "f32", threads=2)).predict
    stacks = [np.random.default_rng(i).random((4, 12, 10), dtype=np.float32) for i in range(4)]
    expected = [predict(stack) for stack in stacks]
    with ThreadPoolExecutor(4) as pool:
        for made, wanted in zip(pool.map(predict, stacks), expected, strict=True):
            np.testing.assert_allclose(made, wanted, atol=1e-6)


def test_engines_that_there_are_not() -> None:
    for wrong, words in (
        ({"device": "tpu"}, "--device tpu: expected auto, cpu, cuda, cuda:N or mps"),
        ({"threads": -1}, r"--threads -1: must be from 0 \(the default\) to 1024"),
        ({"device": "cuda:1", "precision": "int8"}, "--precision int8: is for the CPU, not --device cuda:1"),
    ):
        with pytest.raises(BadInput, match=words):
            Engine(**wrong)


LEFT = """
import logging, os, sys
names = [None, "torch.onnx", "openvino", "seran"]
def state():
    loggers = [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in names]
    return loggers, sys.stdout, sys.stderr, sys.excepthook, dict(os.environ)
if sys.argv[1:]:
    import openvino_telemetry
telemetry, before = sys.modules.get("openvino_telemetry", "absent"), state()
import seran
import seran.engines.openvino
assert state() == before
assert sys.modules.get("openvino_telemetry", "absent") is telemetry
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
import openvino_telemetry
print("the same")
"""


@pytest.mark.parametrize("before", [(), ("imported",)])
def test_an_import_leaves_the_process_as_it_was(before: tuple[str, ...]) -> None:
    """Telemetry, which OpenVINO went without, is there for others: imported before, or after."""
    pytest.importorskip("openvino_telemetry")
    assert alone(LEFT, *before) == "the same\n"


WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        lacking = ("openvino", "MNN", "nibabel", "onnx", "platformdirs", "pydicom", "matplotlib", "SimpleITK")
        return None if name.split(".")[0] in lacking else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import seran.train
print(seran.train.native("cpu"))
"""


def test_training_needs_no_engine_of_the_cpu() -> None:
    """A machine with GPUs may have PyTorch alone."""
    assert alone(WITHOUT).strip() == ("bf16-mixed" if has_bf16() else "32-true")
