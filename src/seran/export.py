"""From a run to a weights file, compared with torch: the one place where a network leaves the torch world."""

import copy
import dataclasses
import functools
import io
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import seran
from seran import files, weights
from seran.degrade import DEGRADATIONS
from seran.engines import Engine, openvino
from seran.errors import BadInput
from seran.models import uncertainty
from seran.models.isotropic import FACTORS, MAPS, AllFactors, Isotropic
from seran.models.native import HEADS, TOLD, AllHeads, Headed
from seran.models.uncertainty import HalfWidth
from seran.recipes import stated
from seran.run import Run
from seran.weights import Card, Evidence, Weights

SIZES = ((1, 24, 32), (2, 33, 20), (1, 61, 47))  # of stacks on which the file must agree with torch
WORST = 2e-4  # largest difference that is accepted, for inputs in [0, 1]


def to_onnx(network: nn.Module, maps: int = 1, results: Sequence[str] = ("high",)) -> onnx.ModelProto:
    """A float32 ONNX model with dynamic batch and slice size; parameters keep their torch names.

    Args:
        network: from ``low`` (n, maps, h, w) to its results.
        maps: the slice, and what else it is given.
        results: their names.
    """
    batch, rows, columns = (torch.export.Dim(n, min=4 if n != "n" else 1) for n in ("n", "h", "w"))
    stream, logger = io.BytesIO(), logging.getLogger("torch.onnx")
    with warnings.catch_warnings(), ExitStack() as afterwards:
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torch about itself
        afterwards.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)  # it warns that torchvision is missing
        program = torch.onnx.export(
            network.eval(),
            (torch.rand(2, maps, 24, 32),),
            input_names=["low"],
            output_names=list(results),
            dynamic_shapes=({0: batch, 2: rows, 3: columns},),
            opset_version=18,
            dynamo=True,
            optimize=False,  # it would merge parameters that happen to be equal
            verbose=False,
        )
    assert program is not None
    program.save(stream)  # type: ignore[arg-type]
    model = onnx.load_from_string(stream.getvalue())
    del model.graph.value_info[:]
    for part in (*model.graph.node, model.graph, model):  # source paths and stack traces
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def halve(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Store the named float32 initializers as float16, each followed by a cast: half the size, same graph."""
    chosen = [t for t in model.graph.initializer if t.name in names and t.data_type == TensorProto.FLOAT]
    for i, tensor in enumerate(chosen):
        wide, half = tensor.name, tensor.name + weights.HALF
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), half))
        model.graph.node.insert(i, helper.make_node("Cast", [half], [wide], to=TensorProto.FLOAT))
    return model


def difference(made: Weights, network: Callable[[torch.Tensor], torch.Tensor], maps: int = 1) -> float:
    """Largest absolute difference between weights, run in float32, and a torch network of so many maps."""
    predict, worst = openvino.load(made, Engine(precision="f32"), direct=True).predict, 0.0
    for seed, shape in enumerate(SIZES):
        n, h, w = shape
        low = np.random.default_rng(seed).random((n, maps, h, w), dtype=np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(low))[:, 0].numpy()
        high = predict(low if maps > 1 else low[:, 0])
        if high.shape != expected.shape:
            raise BadInput(f"export failed: {shape} became {high.shape} at scale {made.card.scale}")
        worst = float(np.maximum(worst, np.abs(high - expected).max()))  # NaN stays
    return worst


def export(run: Run, path: Path, machine: str = "", notes: str = "") -> Card:
    """Write a run's network as a weights file of float16 parameters, unless it differs from torch.

    Args:
        run: what was trained.
        path: the file.
        machine: what trained it, in words.
        notes: for the card.
    """
    recipe, network = run.recipe, copy.deepcopy(run.best).cpu().eval()
    network.half().float()  # what is shipped is the network with rounded parameters
    names = {name for name, _ in network.named_parameters()}
    model = to_onnx(network)
    if missing := names - {t.name for t in model.graph.initializer}:
        raise BadInput(f"export failed: the exporter lost the names of {sorted(missing)[:3]}")
    plain = halve(model, names).SerializeToString()
    rows = [{k.removeprefix("psnr_"): v for k, v in row.items() if k.startswith("psnr_")} for row in run.rows]
    facts = {name: getattr(recipe, name) for name in ("model", "scale", "degradation", "options", "residual")}
    facts |= {name: getattr(run, name) for name in ("scans", "patches", "seconds", "command")}
    facts |= {"anchor": DEGRADATIONS[recipe.degradation].anchor, "recipe": stated(recipe)}
    facts |= {"machine": machine, "notes": notes, "version": seran.__version__}
    card = Card(**facts, validation=next(filter(None, reversed(rows)), {}), export_error=math.nan)
    error = difference(Weights(path, plain, card, Evidence(), ""), network)
    return _sealed(path, plain, card, error)


def export_heads(network: Headed | Isotropic, path: Path, card: Card) -> Card:
    """Write a network with several heads as a weights file of float16 parameters, if each agrees with torch.

    Args:
        network: heads on one body, for scales or for factors across slices; rounded to float16.
        path: the file.
        card: all that is known but the error of this step.
    """
    network.eval().half().float()
    whole: nn.Module
    heads: Sequence[int]
    if isinstance(network, Isotropic):
        whole, maps, heads = AllFactors(network), MAPS, FACTORS
    else:
        whole, maps, heads = AllHeads(network), 1 + TOLD, HEADS
    model = to_onnx(whole, maps, [f"x{k}" for k in heads])
    plain = halve(model, {f"network.{name}" for name, _ in network.named_parameters()}).SerializeToString()
    card = dataclasses.replace(card, options={**card.options, "heads": list(heads)})
    made, worst = Weights(path, plain, card, Evidence(), ""), 0.0
    for k in heads:
        one = weights.head(made, k)
        worst = float(np.maximum(worst, difference(one, functools.partial(_by, network, k), maps)))
    return _sealed(path, plain, card, worst)


def export_small(network: HalfWidth, path: Path, card: Card) -> Card:
    """The same of the small network of `seran.uncertainty`."""
    network.eval().half().float()
    names = {name for name, _ in network.named_parameters()}
    plain = halve(to_onnx(network, uncertainty.MAPS), names).SerializeToString()
    worst = difference(Weights(path, plain, card, Evidence(), ""), network, uncertainty.MAPS)
    return _sealed(path, plain, card, worst)


def _by(network: nn.Module, head: int, low: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = network(low, head)
    return made


def _sealed(path: Path, plain: bytes, card: Card, error: float) -> Card:
    """Write a model with its card, which states how far it is from torch, unless that is too far."""
    if not error <= WORST:
        raise BadInput(f"export refused: the file and the network differ by {error:.2g} (limit {WORST:g})")
    card = dataclasses.replace(card, export_error=error)
    with files.atomic(path) as part:
        part.write_bytes(weights.seal(plain, card))
    return card
