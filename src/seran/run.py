"""A training run: network, average and optimiser, and the checkpoint that holds them."""

import fnmatch
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from seran import facts, files, weights
from seran.engines.torch import parameters
from seran.errors import BadInput
from seran.models import adopt, build
from seran.models.layers import initialise
from seran.recipes import Recipe, differences, stated
from seran.systems import SYSTEMS

CHECKPOINT = "checkpoint.safetensors"
STATE: dict[str, Any] = {  # stated besides tensors and recipe
    "step": int, "seconds": float, "patches": int, "scans": list[dict[str, str]],
    "rows": list[dict[str, float]], "command": str,
}  # fmt: skip
INHERITED = "inherited_seconds"
"""Stated by runs of this version: what of `seconds` is of the weights that a run began with."""
Tensors = tuple[Tensor, ...] | list[Tensor]


@torch.no_grad()
def _average(decay: float, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
    """Exponential moving average that starts as a plain mean, so that it soon forgets the initialisation."""
    torch._foreach_lerp_(averaged, current, 1 - min(decay, int(count) / (int(count) + 1)))


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; each group of parameters carries its ``factor`` of the learning rate."""
    groups: defaultdict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        factors = (f for pattern, f in recipe.rates.items() if fnmatch.fnmatch(name, pattern))
        groups[next(factors, 1.0)].append(parameter)
    if recipe.rates and len(groups) == 1:
        raise BadInput(f"no parameter of {recipe.model} is named like {', '.join(recipe.rates)}")
    params = [{"params": members, "factor": factor} for factor, members in groups.items()]
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(params, momentum=recipe.betas[0], **shared)
    return torch.optim.Adam(params, betas=recipe.betas, **shared)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Tell as `BadInput` whatever a file raises that is no checkpoint, or one that was cut or changed."""
    try:
        yield
    except (
        SafetensorError,
        OSError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        why = " ".join(str(error).split())[:200]
        told = "put back a copy of it, or remove it and begin again"
        raise BadInput(f"{path}: expected a checkpoint of `seran train`, whole ({why}); {told}") from error


def _changed(source: str, kept: str) -> str:
    """What to say where a user's own network is of the same file and class, but not as it was; or nothing."""
    (named, _, now), (before, _, then) = source.partition(" sha256:"), kept.partition(" sha256:")
    same = now and then and named == before
    return f"{named.rpartition(':')[0]} has changed since this run began" if same and now != then else ""


class Run:
    """The parameters of a run and where they are kept: network, average, optimiser, step."""

    def __init__(self, recipe: Recipe, fresh: bool = True) -> None:
        """A run at step 0; what a checkpoint will fill is not ``fresh`` and ignores the recipe's `init`."""
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.step, self.patches, self.seconds, self.command = 0, 0, 0.0, ""
        self.inherited: float | None = 0.0  # seconds of those that are of `init`; None where it is not known
        self.scans: list[dict[str, str]] = []
        self.rows: list[dict[str, Any]] = []
        self.network = build(recipe.model, recipe.scale, recipe.options, recipe.residual)
        if recipe.initializer != "network":
            initialise(self.network, recipe.initializer)
        if recipe.init and fresh:
            start = weights.read(weights.named(Path(recipe.init)))
            card, rescaled = start.card, start.card.scale != recipe.scale
            self.network.load_state_dict(parameters(self.network, start, rescaled))
            self.patches, self.seconds, self.scans = card.patches, card.seconds, card.scans
            self.inherited = card.seconds
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.network, multi_avg_fn=partial(_average, recipe.ema))
        self.average.requires_grad_(False)
        self.optimizer = _optimiser(self.network, recipe)

    @classmethod
    def load(cls, path: Path, model: str = "") -> "Run":
        """The run of a checkpoint, which imports nothing but ``model``, a user's own ``FILE.py:CLASS``."""
        if not path.is_file():
            raise BadInput(f"{path}: no such checkpoint; expected a folder made by `seran train`")
        with _readable(path), safe_open(path, "pt") as file:
            settings = facts.parsed(file.metadata()["recipe"])
            source = settings.pop("source", "")
            recipe = facts.of(Recipe, settings)
        name = adopt(model, recipe.scale, recipe.options) if model else recipe.model
        given = SYSTEMS[name].source if name in SYSTEMS else ""
        if changed := _changed(given, source):
            raise BadInput(f"{changed}; give that very file again")
        if source != given:
            told = "give that very file again, --model FILE.py:CLASS" if source else "leave --model out"
            raise BadInput(f"{path} is of {source or recipe.model}; {told}")
        run = cls(recipe, fresh=False)
        run.restore(path)
        return run

    @property
    def best(self) -> nn.Module:
        """The network to validate and export: the average if the recipe keeps one."""
        return self.average.module if self.recipe.ema else self.network

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, atomically; no pickle is involved."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, kept in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in kept.items()}
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        state = {name: getattr(self, name) for name in STATE} | {INHERITED: self.inherited}
        meta = {"recipe": json.dumps(stated(self.recipe)), "state": json.dumps(state)}
        with files.atomic(path) as part:
            part.write_bytes(save(tensors, metadata=meta))

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint; its recipe must be the same, and only ``steps`` may differ."""
        parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        with _readable(path):
            with safe_open(path, "pt") as file:
                meta = file.metadata()
                for name in file.keys():  # noqa: SIM118
                    part, _, key = name.partition(".")
                    parts[part][key] = file.get_tensor(name)
            kept = facts.parsed(meta["recipe"])
            differ = [k for k in differences(self.recipe, kept) if k != "steps"]
        if changed := _changed(stated(self.recipe).get("source", ""), kept.get("source", "")):
            raise BadInput(f"{changed}; put that file back, or name another folder than {path.parent}")
        if differ:
            raise BadInput(
                f"{path} was trained with another recipe ({', '.join(differ)} differ); "
                "name another folder, or give the same settings to continue"
            )
        with _readable(path):
            self.network.load_state_dict(parts["network"])
            self.average.load_state_dict(parts["average"])
            self._restore_optimiser(parts["optimizer"])
            state = facts.parsed(meta["state"])
            for name, kind in STATE.items():
                setattr(self, name, facts.typed(state[name], kind, name))
            unknown = None if self.recipe.init else 0.0
            self.inherited = facts.typed(state.get(INHERITED, unknown), float | None, INHERITED)
        # what earlier versions kept had its paths
        self.command = " ".join(map(files.nameless, self.command.split(" ")))

    def _restore_optimiser(self, tensors: dict[str, Tensor]) -> None:
        shapes = [p.shape for group in self.optimizer.param_groups for p in group["params"]]
        kept: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            if value.dim() and value.shape != shapes[int(index)]:
                raise ValueError(f"optimizer.{key} of shape {tuple(value.shape)}")
            if value.dim() == 4:  # laid out as the parameters: the fused update goes through memory in order
                value = value.contiguous(memory_format=torch.channels_last)
            kept[int(index)][name] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": kept})
