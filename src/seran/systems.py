"""The systems of the paper's Table 3, as facts: who published them, and how large they are.

Nothing here is needed to run them; `seran methods` and the table in README are made of it, and a test
holds the counts against the networks.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One method.

    Attributes:
        title: what the paper's tables call it.
        year: of publication.
        paper: authors and venue.
        parameters: of this project's default network at ×2, ×3 and ×4; none for classical methods.
    """

    title: str
    year: int
    paper: str
    parameters: tuple[int, int, int] | None = None

    def sizes(self) -> str:
        """The counts in words: one where all scales agree."""
        if self.parameters is None:
            return "–"
        return " / ".join(
            dict.fromkeys(f"{n / 1e6:.2f}M" if n > 1e5 else f"{n / 1e3:.1f}K" for n in self.parameters)
        )


SYSTEMS: Mapping[str, System] = {
    "bicubic": System("Bicubic [2D]", 1981, "Keys, IEEE TASSP 29; as in MATLAB's imresize"),
    "zerofill": System("Zero-filling", 1994, "Du et al., JMRI 4; the baseline for truncated k-space"),
    "nlm": System("NLM", 2010, "Manjón et al., Medical Image Analysis 14"),
    "srcnn": System("SRCNN", 2014, "Dong et al., ECCV", (24_513, 24_513, 24_513)),
    "vdsr": System("VDSR", 2016, "Kim et al., CVPR", (665_921, 665_921, 665_921)),
    "idn": System("IDN", 2018, "Hui et al., CVPR", (732_676, 825_161, 954_640)),
    "rdn": System("RDN", 2018, "Zhang et al., CVPR", (22_121_089, 22_305_729, 22_268_801)),
    "fscwrn": System("FSCWRN", 2019, "Shi et al., IEEE JBHI 23", (3_503_297, 3_503_297, 3_503_297)),
    "csn": System("CSN", 2019, "Zhao et al., IEEE TIP 28", (13_644_801, 16_595_201, 16_005_121)),
    "edsr": System("EDSR, 40 blocks", 2017, "Lim et al., CVPRW", (3_140_097, 3_324_737, 3_287_809)),
    "seab": System("SEAB", 2021, "Zhang et al., CVPR", (3_148_417, 3_333_057, 3_296_129)),
    "seran": System("SERAN", 2021, "Zhang et al., CVPR", (3_165_057, 3_349_697, 3_312_769)),
}
"""Every method by name."""


def title(name: str) -> str:
    """What the paper's tables call a method; its self-ensemble has a ``+`` there, too."""
    return SYSTEMS[name.removesuffix("+")].title + "+" * name.endswith("+")
