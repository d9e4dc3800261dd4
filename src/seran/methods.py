"""From the name of a method to a predictor: classical ones, shipped networks, weights of one's own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seran import weights
from seran.classical import CLASSICAL, VOLUMETRIC
from seran.degrade import DEGRADATIONS
from seran.errors import BadInput
from seran.extras import needed
from seran.grid import Anchor
from seran.machine import cpus
from seran.sharpen import Predict, ensembled
from seran.systems import SYSTEMS


@dataclass(frozen=True)
class Engine:
    """How networks are run.

    Attributes:
        device: ``auto`` and ``cpu`` use OpenVINO, and MNN for float32 where it suits; ``cuda``, ``cuda:N``
            and ``mps`` use PyTorch.
        precision: of the convolutions; ``auto`` is bf16 where the processor has it; int8 is for the CPU and
            weights that are calibrated for it.
        threads: CPU threads; 0 for every CPU this process may use.

    Raises:
        BadInput: for an unknown device or a negative number of threads.
    """

    device: str = "auto"
    precision: Literal["auto", "bf16", "f32", "int8"] = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise BadInput(f"expected a device of auto, cpu, cuda, cuda:N or mps, got {self.device!r}")
        if self.threads < 0:
            raise BadInput(f"expected a number of threads, or 0 for all, got {self.threads}")


@dataclass(frozen=True)
class Method:
    """A predictor and what must be known of it.

    Attributes:
        degradation: what it undoes.
        anchor: the grid convention of its result.
        weights: what the weights are called, empty for classical methods.
        sha256: digest stated and verified in the weights file.
        engine: what runs it, in words.
        whole: it looks across slices and so must be given all of them at once.
        scans: what the weights were trained on, see `seran.weights.Card`.
    """

    name: str
    scale: int
    predict: Predict
    degradation: str
    anchor: Anchor
    weights: str = ""
    sha256: str = ""
    engine: str = "numpy"
    precision: str = "f32"
    whole: bool = False
    scans: Sequence[dict[str, str]] = ()


def names() -> list[str]:
    """Every method, whether weights of it are shipped or not."""
    return list(SYSTEMS)


def is_network(name: str) -> bool:
    """Whether a method's name (with or without its ``+``) stands for a network."""
    return name.removesuffix("+") not in CLASSICAL


def named(file: Path) -> Path:
    """A weights file by its path, or by the name of weights that are at hand (``seran-x2-td``)."""
    return file if file.is_file() else weights.at_hand().get(str(file), file)


def _file(name: str, scale: int, degradation: str) -> Path:
    found = weights.at_hand()
    key = f"{name}-x{scale}-{degradation}"
    if key in found:
        return found[key]
    if name not in names():
        raise BadInput(f"expected a method of {', '.join(names())}, got {name!r}")
    if key in weights.listed():
        raise BadInput(f"the weights {key} are not in this installation; get them: seran weights pull {key}")
    raise BadInput(
        f"no weights are shipped for {key}; there are {', '.join(found)}; choose one of these with "
        "--method and --scale, or give a file with --weights"
    )


def method(
    name: str,
    scale: int,
    degradation: str = "bd",
    file: Path | None = None,
    engine: Engine = Engine(),
) -> Method:
    """Look a method up and make it ready to run; a name that ends in ``+`` is self-ensembled.

    Args:
        name: see `names`.
        scale: 2, 3 or 4.
        degradation: which of the shipped weights, where there are several.
        file: weights to use instead of the shipped ones, or the name of other ones at hand; of ``name`` and
            ``scale``.
        engine: how a network is run.

    Raises:
        BadInput: for an unknown name, or weights that do not fit it.
    """
    plain = name.removesuffix("+")
    if not is_network(name):
        if file is not None:
            raise BadInput(f"the method {plain} has no weights; leave --weights out")
        undone = SYSTEMS[plain].undoes
        found = Method(
            name,
            scale,
            CLASSICAL[plain](scale, engine.threads),
            undone,
            DEGRADATIONS[undone].anchor,
            engine="numba" if plain == "nlm" else "numpy",
            whole=plain in VOLUMETRIC,
        )
    else:
        found = _network(
            name, plain, scale, named(file) if file else _file(plain, scale, degradation), engine
        )
    if name.endswith("+"):
        return Method(**{**found.__dict__, "predict": ensembled(found.predict, found.anchor)})
    return found


def _network(name: str, plain: str, scale: int, path: Path, engine: Engine) -> Method:
    data, card, digest = weights.read(path)
    if card.scale != scale:
        raise BadInput(f"{path}: expected weights for --scale {scale}, these are for x{card.scale}")
    if card.model != plain:
        raise BadInput(f"{path}: expected weights of {plain}, these are of {card.model}")
    predict, what, precision = _run(data, card, engine)
    return Method(
        name, scale, predict, card.degradation, card.anchor, path.name, digest, what, precision,
        scans=card.scans,
    )  # fmt: skip


def _run(data: bytes, card: weights.Card, engine: Engine) -> tuple[Predict, str, str]:
    if engine.device in ("auto", "cpu"):
        from seran.engines import mnn, openvino

        trunk = mnn.trunk if mnn.suits(engine.threads or cpus()) else None
        predict, what, precision = openvino.load(
            data, card.scale, engine.precision, engine.threads, card.ranges, trunk
        )
        return predict, what, precision
    if engine.precision == "int8":
        raise BadInput(f"int8 is for the CPU, got the device {engine.device}; leave --precision out")
    try:
        from seran.engines import torch
    except ModuleNotFoundError as error:
        raise needed(f"the device {engine.device}", error) from error
    predict, what, precision = torch.load(data, card, engine.device, engine.precision)
    return predict, what, precision
