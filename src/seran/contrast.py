"""The contrast of a scan, by words of a closed list: what half-widths are calibrated for."""

import re

T1, OTHER = "T1", "other"  # classes of contrasts, each with a calibration of its own
NAMED = re.compile(
    r"(?<![a-z0-9])(?:(?P<t1>t1(?:w|wi|c|ce|gd)?|mprage|mp2rage|f?spgr|bravo)"
    r"|(?:inplane)?t2\w?|pd\w?|flair|t2star|bold|epi|dwi|swi|asl|angio|maps?|mapping|molli)(?![a-z0-9])", re.I
)  # fmt: skip


def named(text: str) -> str:
    """`T1` where a text says so and names no other contrast, `OTHER` where it names one; else empty.

    >>> [named(text) for text in ("t1_fl2d_sag", "Ax T1 FLAIR", "T1 Map", "localizer")]
    ['T1', 'other', 'other', '']
    """
    found = list(NAMED.finditer(text))
    return (T1 if all(one["t1"] for one in found) else OTHER) if found else ""


def contrast_of(name: str) -> str:
    """That of the name of a scan: `T1` where it says so and names no other one, else `OTHER`.

    >>> [contrast_of(name) for name in ("sub-01_T1w.nii.gz", "sub-01_space-T1w_T2w.nii.gz", "T1map.nii")]
    ['T1', 'other', 'other']
    """
    return named(name) or OTHER
