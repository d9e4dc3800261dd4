"""Weights: their cards, their files, and the registry of those that belong to this version."""

from seran.weights.card import Card
from seran.weights.file import HALF, opened, read, seal, tensors
from seran.weights.registry import REGISTRY, SHIPPED, at_hand, cache_folder, listed, shipped, state

__all__ = [
    "HALF", "REGISTRY", "SHIPPED", "Card", "at_hand", "cache_folder", "listed", "opened", "read", "seal",
    "shipped", "state", "tensors",
]  # fmt: skip
