"""Paired comparisons of methods with a baseline: what each gains on the same scans, and how sure that is.

Scans of one subject are alike, so subjects are what is drawn and tested, not volumes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import wilcoxon

Row = dict[str, Any]
DRAWS = 10_000
FEWEST = 6
"""Subjects below which there is neither interval nor p. Of three, the bootstrap's interval is from the least
to the greatest value; of five, the least two-sided p is 2 / 2⁵, so that no difference can reach 0.05."""
EVERY = "all"
"""What all contrasts together are called."""


def interval(values: Sequence[float], subjects: Sequence[object]) -> tuple[float, float]:
    """95 % percentile interval of the mean of all values; whole subjects are drawn."""
    of = _numbered(subjects)
    sums, counts = np.bincount(of, values), np.bincount(of)
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def p_value(differences: Float[ndarray, "n"]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 if there is no difference at all.

    >>> round(p_value(np.array([0.3, 0.1, 0.4, 0.2, 0.6, 0.5])), 5)
    0.03125
    """
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def subject_of(row: Row) -> tuple[str, str]:
    """Who a row is of: subjects are told apart within a repository."""
    return row["repository"], row["subject"]


def paired(rows: Sequence[Row], baseline: str, metrics: Sequence[str]) -> list[Row]:
    """Differences of every method from the baseline, per contrast and over all contrasts.

    Args:
        rows: one for each volume and method: ``name`` of the volume, ``repository``, ``subject``,
            ``contrast``, ``method`` and the metrics.
        baseline: the method that differences are from.
        metrics: names of the numbers.

    Returns:
        One row per contrast, method and metric: ``difference`` is the mean over the volumes; ``low`` and
        ``high`` its interval, and ``p`` is of the subjects' means, all three None below `FEWEST` subjects.
        All four are None where a number is not finite (the PSNR of what equals the truth).
    """
    base = {r["name"]: r for r in rows if r["method"] == baseline}
    contrasts = sorted({r["contrast"] for r in rows})
    others = list(dict.fromkeys(r["method"] for r in rows if r["method"] != baseline))
    found = []
    for contrast in [*contrasts, *[EVERY] * (len(contrasts) > 1)]:
        for method in others:
            group = [r for r in rows if r["method"] == method and contrast in (r["contrast"], EVERY)]
            of = _numbered([subject_of(r) for r in group])
            about = {"contrast": contrast, "method": method, "volumes": len(group)}
            about["subjects"] = int(of.max()) + 1
            for metric in metrics:
                pairs = np.array([(r[metric], base[r["name"]][metric]) for r in group], float)
                found.append({**about, "metric": metric, **_compared(pairs, of)})
    return found


def _compared(pairs: Float[ndarray, "n 2"], of: ndarray) -> Row:
    """What is known of the differences of pairs; ``of`` numbers the subject of each."""
    nothing = dict.fromkeys(("difference", "low", "high", "p"))
    if not np.isfinite(pairs).all():
        return nothing
    differences = pairs[:, 0] - pairs[:, 1]
    means = np.bincount(of, differences) / np.bincount(of)
    found = nothing | {"difference": float(differences.mean())}
    if len(means) >= FEWEST:
        found["low"], found["high"] = interval(differences.tolist(), of.tolist())
        found["p"] = p_value(means)
    return found


def _numbered(subjects: Sequence[object]) -> ndarray:
    """A number for each subject, from 0."""
    numbers = {subject: i for i, subject in enumerate(sorted(set(subjects), key=str))}
    return np.array([numbers[one] for one in subjects])


def words(baseline: str) -> str:
    """How `paired` comes about."""
    return (
        f"differences from {baseline}: mean over volumes; in brackets the 95 % bootstrap interval over "
        f"subjects ({DRAWS:,} draws), p: Wilcoxon's signed-rank test, two-sided, of the subjects' means, not "
        f"corrected for the number of comparisons; both from {FEWEST} subjects on (of fewer an interval is "
        "little more than their range, and no p reaches 0.05)"
    )
