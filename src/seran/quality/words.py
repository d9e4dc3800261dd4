"""What each check asks, in a plain sentence, and its answer."""

from seran.quality.checks import Check, Verdict

SENTENCES = {
    "geometry": "lies where the scan lies",
    "intensities": "keeps the range of the scan's intensities",
    "residual": "acquired as the scan was, is the scan again",
    "consistency": "agrees with the scan to within its noise",
    "noise": "is no noisier than the scan",
    "overshoot": "has no bright or dark rims that the scan lacks",
    "signal": "comes from a scan with signal enough to gain detail",
    "familiar": "comes from a scan like those that weights know",
    "added": "has no more detail added than is usual",
    "uncertainty": "is about as sure as results usually are",
    "resolution": "is no finer than its method can make a scan like this",
}
"""By the name of a check, of the result."""
ANSWERS: dict[Verdict, str] = {"PASS": "yes", "not known": "not known", "WARN": "not quite", "FAIL": "no"}


def sentence(check: Check) -> str:
    """What a check says of the result, for whoever does not read its numbers.

    >>> sentence(Check("consistency", "WARN", "the residual has 1.75 times …", 1.75))
    'agrees with the scan to within its noise: not quite'
    """
    asked = check.verdict != "PASS" or check.value is not None  # of what estimates nothing, little is asked
    return f"{SENTENCES.get(check.name, check.name)}: {ANSWERS[check.verdict] if asked else 'nothing to ask'}"
