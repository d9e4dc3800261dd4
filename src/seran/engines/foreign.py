"""ONNX files of other programs on the CPU, to be scored beside seran's own: no card, no seal.

Such a network takes one slice, (1, 1, h, w) of float32 and of about [0, 1], and returns (1, 1, s·h, s·w), for
any h and w. Nothing is known of what it was trained on.
"""

from pathlib import Path

import numpy as np

from seran import machine
from seran.engines import Engine, Lane, Running, predictor
from seran.engines.runtime import ov, setting, words
from seran.errors import BadInput
from seran.grid import dimensions
from seran.machine import short_of_memory

TRIED = (24, 32), (37, 26)  # pixels of slices that a network is tried on


def load(path: Path, scale: int, engine: Engine) -> Running:
    """A network in an ONNX file, in float32 unless bf16 is asked for.

    Args:
        path: the file; what it keeps in files beside it is read, too.
        scale: fine pixels for each pixel along rows and columns.
        engine: its precision and threads; only the CPU.

    Raises:
        BadInput: for what is no such network, found out on slices of two sizes.
    """
    if engine.device not in ("auto", "cpu") or engine.precision == "int8":
        raise BadInput("--onnx: networks of other programs run on the CPU, with --precision f32 or bf16")
    core, kind = ov.Core(), "bf16" if engine.precision == "bf16" else "f32"
    threads = engine.threads or machine.threads()
    try:
        model = core.read_model(str(path))
        found = ", ".join(str(value.get_partial_shape()) for value in model.inputs)
        given = [value.get_partial_shape() for value in model.inputs]
        single = len(given) == 1 and len(model.outputs) == 1 and given[0].rank.is_static
        if not single or len(given[0]) != 4 or not given[0].compatible(ov.PartialShape([-1, 1, -1, -1])):
            raise BadInput(
                f"--onnx {path}: expected one input of (slices, 1, rows, columns) and one output, got inputs "
                f"{found} and {len(model.outputs)} outputs; wrap it, or score its images: --predictions"
            )
        if any(value.get_element_type() != ov.Type.f32 for value in (*model.inputs, *model.outputs)):
            raise BadInput(f"--onnx {path}: expected float32 in and out; export it so, or use --predictions")
        model.reshape(ov.PartialShape([1, 1, -1, -1]))
        network = core.compile_model(model, "CPU", setting(kind == "bf16", threads))
    except RuntimeError as error:
        raise _unusable(path, error) from error
    for size in TRIED:
        wanted = (1, 1, *(scale * n for n in size))
        try:
            made = network(np.random.default_rng(0).random((1, 1, *size), np.float32))[0]
        except RuntimeError as error:
            raise _unusable(path, error, f" (tried on a slice of {dimensions(size)})") from error
        if made.shape != wanted:
            same = "; the enlargement must be inside the network" * (made.shape[2:] == size)
            raise BadInput(
                f"--onnx {path}: expected {dimensions(wanted)} of a slice of {dimensions(size)} at x{scale}, "
                f"got {dimensions(made.shape)}{same}; give another --scale, wrap it, or use --predictions"
            )
    lane = Lane(lambda low: low, lambda low: network(low)[0][:, 0])
    return Running(predictor((scale, scale), lambda h, w: ([lane], 1)), words(threads), kind)


def _unusable(path: Path, error: RuntimeError, when: str = "") -> Exception:
    """What to raise for an error of OpenVINO."""
    if short_of_memory(error):
        return error
    why = " ".join(str(error).split())[-200:]
    return BadInput(
        f"--onnx {path}: cannot be run{when}; it must take slices of any size (export it with dynamic axes): "
        f"{why}"
    )
