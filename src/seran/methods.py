"""From the name of a method to a predictor: classical ones, shipped networks, weights of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seran import weights
from seran.classical import CLASSICAL, VOLUMETRIC
from seran.degrade import DEGRADATIONS
from seran.engines import Engine, Running
from seran.errors import BadInput
from seran.extras import needed
from seran.grid import Anchor
from seran.sharpen import Predict, ensembled
from seran.systems import SYSTEMS

DEGRADATION_OF = {"bicubic": "bd", "zerofill": "td", "nlm": "bd"}
"""The degradation whose grid a classical method undoes; networks state theirs in their card."""


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
    engine: Engine = Engine(),  # noqa: B008
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
        undone = DEGRADATION_OF[plain]
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
    held = weights.read(path)
    card = held.card
    if card.scale != scale:
        raise BadInput(f"{path}: expected weights for --scale {scale}, these are for x{card.scale}")
    if card.model != plain:
        raise BadInput(f"{path}: expected weights of {plain}, these are of {card.model}")
    running = _load(held, engine)
    return Method(
        name, scale, running.predict, card.degradation, card.anchor, path.name, held.digest, running.engine,
        running.precision, scans=card.scans,
    )  # fmt: skip


def _load(held: weights.Weights, engine: Engine) -> Running:
    if engine.device in ("auto", "cpu"):
        from seran.engines import openvino

        return openvino.load(held, engine)
    try:
        from seran.engines import torch
    except ModuleNotFoundError as error:
        raise needed(f"the device {engine.device}", error) from error
    return torch.load(held, engine)
