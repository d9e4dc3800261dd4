"""Weights: their cards, their files, and the registry of those that belong to this version."""

from seran.weights.card import Card, Evidence, Spacings
from seran.weights.file import HALF, Weights, read, seal, tensors, with_evidence
from seran.weights.registry import REGISTRY, at_hand, cache_folder, listed, shipped, state

__all__ = [
    "HALF", "REGISTRY", "Card", "Evidence", "Spacings", "Weights", "at_hand", "cache_folder",
    "listed", "read", "seal", "shipped", "state", "tensors", "with_evidence",
]  # fmt: skip
