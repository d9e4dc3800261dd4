"""From the name of a method to a predictor: classical ones, shipped networks, weights of one's own."""

import functools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy import ndarray

from seran import files, weights
from seran.classical import CLASSICAL, VOLUMETRIC
from seran.degrade import DEGRADATIONS
from seran.engines import Engine, Running
from seran.errors import BadInput
from seran.machine import needed
from seran.sharpen import Across, Method, ensembled
from seran.systems import SYSTEMS
from seran.uncertainty import Calibration, Widths
from seran.weights import Weights, named

DEFAULT, FAST = "seran", "fast"
ISOTROPIC = "isotropic"  # what weights for thick slices are called
NATIVE = "native"  # the degradation of weights that undo what is known of a scan's acquisition
SAME = "--scale 1: keeps the grid, which only native weights do; {} enlarges by 2, 3 or 4"
LOADING = threading.Lock()  # threads that want the same network share it
AUTO = Engine()


def is_network(name: str) -> bool:
    """Whether a method's name (with or without its ``+``) stands for a network."""
    return name.removesuffix("+") not in CLASSICAL


def files_of(name: str) -> list[Path]:
    """All weights of a method that are at hand."""
    return [path for key, path in weights.at_hand().items() if belongs(key, name)]


def belongs(key: str, name: str) -> bool:
    """Whether weights are of a method: ``NAME-xSCALE-DEGRADATION``, or ``NAME-native``, of several scales."""
    return key in (f"{name}-{NATIVE}", f"{name}-{ISOTROPIC}") or key.startswith(f"{name}-x")


def is_native(name: str) -> bool:
    """Whether a method has weights for scans as scanners give them."""
    return f"{name.removesuffix('+')}-{NATIVE}" in weights.listed()


def implied(name: str | None, file: Path | None) -> tuple[str, int]:
    """The method, and the scale where none is asked for: of the weights, if they are named."""
    if file is None:
        return name or DEFAULT, 2
    held = weights.known(named(file))
    return name or held.card.model, 2 if 2 in weights.scales(held) else held.card.scale


def _file(name: str, scale: int, degradation: str) -> Path:
    found, key = weights.at_hand(), f"{name}-x{scale}-{degradation}"
    key = f"{name}-{NATIVE}" if degradation == NATIVE else key
    if key in found:
        return found[key]
    if name not in SYSTEMS:
        raise BadInput(f"--method {name}: expected {', '.join(SYSTEMS)}")
    if key in weights.listed():
        raise BadInput(f"the weights {key} are not in this installation; get them: seran weights pull {key}")
    raise BadInput(
        f"no weights are shipped for {key}; there are {', '.join(found)}; choose one of these with "
        "--method and --scale, or give a file with --weights"
    )


def refuse_unknown(name: str, scale: int, degradation: str) -> None:
    """Raise `BadInput` if there is no such method, or there are no shipped weights of it.

    Args:
        name: of the method, with or without its ``+``.
        scale: 1, 2, 3 or 4.
        degradation: bd, td or native.
    """
    if scale == 1 and not (is_network(name) and degradation == NATIVE):
        raise BadInput(SAME.format(name))
    if is_network(name):
        _file(name.removesuffix("+"), scale, degradation)


def method(
    name: str, scale: int, degradation: str = "bd", file: Path | None = None, engine: Engine = AUTO
) -> Method:
    """Look a method up and make it ready to run; a name that ends in ``+`` is self-ensembled.

    Args:
        name: see `seran.systems.SYSTEMS`.
        scale: 2, 3 or 4; of native weights also 1.
        degradation: which of the shipped weights, where there are several: bd, td or native.
        file: weights to use instead, or the name of other ones at hand; of ``name`` and ``scale``.
        engine: how a network is run.
    """
    plain = name.removesuffix("+")
    if scale == 1 and (not is_network(name) or (file is None and degradation != NATIVE)):
        raise BadInput(SAME.format(name))
    if is_network(name):
        found = _network(plain, scale, named(file) if file else _file(plain, scale, degradation), engine)
    elif file is not None:
        raise BadInput(f"the method {plain} has no weights; leave --weights out")
    else:
        predict, undone = CLASSICAL[plain](scale, engine.threads), SYSTEMS[plain].undoes
        context, runs_on = None if plain in VOLUMETRIC else 0, "numba" if plain == "nlm" else "numpy"
        anchor = DEGRADATIONS[undone].anchor
        found = Method(plain, (scale, scale), predict, undone, anchor, context, engine=runs_on)
    if not name.endswith("+"):
        return found
    return replace(found if found.heads else ensembled(found), name=name)


def foreign(path: Path, scale: int, degradation: str, engine: Engine = AUTO) -> Method:
    """A network in an ONNX file that is not seran's, called as the file; for scoring alone.

    Args:
        path: the file.
        scale: 2, 3 or 4.
        degradation: what it is taken to undo: that of the pairs it is scored on.
        engine: how it is run.
    """
    from seran.engines import foreign as runner

    if not path.is_file():
        raise BadInput(f"--onnx {path}: no such file")
    try:
        card = weights.read(path).card
    except BadInput:  # what is no weights file of seran's
        running, anchor = runner.load(path, scale, engine), DEGRADATIONS[degradation].anchor
        facts: dict[str, Any] = {"weights": path.name, "sha256": files.sha256(path)}
        facts |= {"engine": running.engine, "precision": running.precision}
        return Method(path.stem, (scale, scale), running.predict, degradation, anchor, **facts)
    raise BadInput(
        f"--onnx {path}: is a weights file of seran's, which says what it was trained on; give "
        f"--methods {card.model} --weights {path}"
    )


def across(name: str, file: Path | None = None, engine: Engine = AUTO) -> Across:
    """The network across slices of a method: the shipped weights, or those of a file.

    Args:
        name: of the method.
        file: weights to use instead, or the name of other ones at hand.
        engine: how it is run.
    """
    plain, found = name.removesuffix("+"), weights.at_hand()
    key = f"{plain}-{ISOTROPIC}"
    if file is None and key not in found:
        if key in weights.listed():
            raise BadInput(
                f"the weights {key} are not in this installation; get them: seran weights pull {key}"
            )
        raise BadInput(f"--isotropic: {plain} has no weights for thick slices; leave --method out")
    path = named(file) if file else found[key]
    held = weights.read(path)
    if held.card.degradation != weights.SLICES:
        raise BadInput(f"--isotropic: {path} holds no weights for thick slices; leave --weights out")

    def heads(k: int) -> Running:
        with LOADING:
            return _running(weights.head(held, k), engine)

    by_factor = functools.partial(weights.head, held)
    return Across(path.name, held.digest, heads, tuple(held.card.scans), _seen(held), by_factor)


def widths(name: str, digest: str, engine: Engine = AUTO) -> Widths | None:
    """What gives half-widths to the results of weights, if that was calibrated for these.

    Args:
        name: of their file.
        digest: theirs.
        engine: how the small network is run.
    """
    path = weights.at_hand().get(f"{Path(name).stem}-{weights.UNCERTAINTY}")
    held = weights.read(path) if path else None
    if held is None or held.card.options.get("of") != digest:
        return None
    with LOADING:
        running = _running(held, replace(engine, precision="auto") if engine.precision == "int8" else engine)
    return Widths(running.predict, {k: Calibration(**found) for k, found in held.evidence.widths.items()})


def _network(name: str, scale: int, path: Path, engine: Engine) -> Method:
    whole = weights.read(path)
    held = whole if whole.card.degradation == weights.SLICES else weights.head(whole, scale)
    card = held.card
    if card.degradation == weights.SLICES:
        raise BadInput(f"{path} holds weights for thick slices: give --isotropic")
    if card.model != name:
        raise BadInput(f"--method {name}: {path} holds weights of {card.model}")
    facts: dict[str, Any] = {"sha256": whole.digest, "scans": card.scans, "spacings": _seen(held)}
    facts |= {"weights": path.name}
    if card.degradation == NATIVE:

        def heads(k: int) -> Running:
            with LOADING:
                return _running(weights.head(whole, k), engine)

        return Method(name, (scale, scale), _unbound, "td", card.anchor, heads=heads, **facts)
    with LOADING:
        running = _running(held, engine)
    facts |= {"engine": running.engine, "precision": running.precision}
    return Method(name, (scale, scale), running.predict, card.degradation, card.anchor, **facts)


def _seen(held: Weights) -> tuple[float, float, float, float] | None:
    """Spacings in mm that weights were trained on: in the plane from, to, across from, to."""
    seen = held.evidence.spacings
    return None if seen is None else (*seen.plane, *seen.across)


def _unbound(_: ndarray) -> ndarray:
    raise BadInput("native weights need a scan whose acquisition is known: use seran.upscale or seran.load")


def loaded(held: Weights, engine: Engine) -> Running:
    """A network on the engine that runs it."""
    if engine.device in ("auto", "cpu"):
        from seran.engines import openvino

        return openvino.load(held, engine)
    try:
        from seran.engines import torch
    except ModuleNotFoundError as error:
        raise needed(f"the device {engine.device}", error) from error
    return torch.load(held, engine)


_running = functools.lru_cache(maxsize=6)(loaded)
"""A network loaded once for all that want it, known by what its file holds, whatever that is called."""
forget = _running.cache_clear  # lets go of the networks that are loaded
