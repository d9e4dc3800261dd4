"""The methods of the paper's Table 3: who published them, how large they are, which network each one is.

Networks are built, trained, tested and listed from this one registry: one is added by its file and an entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class System:
    """One method."""

    title: str  # what the paper's tables call it
    year: int  # of publication; 0 for a user's own network
    paper: str  # authors and venue
    parameters: tuple[int, int, int] | None = None  # of the default network at ×2, ×3 and ×4
    network: str = ""  # ``module:Class``, imported when it is built; empty for classical methods
    options: Mapping[str, Any] = field(default_factory=dict)  # of the class; a recipe's override them
    adds_bicubic: bool = False  # the network adds the bicubic enlargement by itself
    undoes: str = ""  # a classical method's degradation; a network's card states its own
    source: str = ""  # of a user's own network: its file, class and SHA-256

    def sizes(self) -> str:
        """The counts in words: one where all scales agree."""
        words = [f"{n / 1e6:.2f}M" if n > 1e5 else f"{n / 1e3:.1f}K" for n in self.parameters or ()]
        return " / ".join(dict.fromkeys(words)) or "–"


SYSTEMS: dict[str, System] = {  # every method by name
    "bicubic": System("Bicubic [2D]", 1981, "Keys, IEEE TASSP 29; as in MATLAB's imresize", undoes="bd"),
    "zerofill": System("Zero-filling", 1994, "Du et al., JMRI 4; the baseline for truncated k-space",
                       undoes="td"),
    "nlm": System("NLM", 2010, "Manjón et al., Medical Image Analysis 14", undoes="bd"),
    "srcnn": System("SRCNN", 2014, "Dong et al., ECCV", (24_513,) * 3, "seran.models.srcnn:SRCNN"),
    "vdsr": System("VDSR", 2016, "Kim et al., CVPR", (665_921,) * 3, "seran.models.vdsr:VDSR",
                   adds_bicubic=True),
    "idn": System("IDN", 2018, "Hui et al., CVPR", (732_676, 825_161, 954_640), "seran.models.idn:IDN",
                  adds_bicubic=True),
    "rdn": System("RDN", 2018, "Zhang et al., CVPR", (22_121_089, 22_305_729, 22_268_801),
                  "seran.models.rdn:RDN"),
    "fscwrn": System("FSCWRN", 2019, "Shi et al., IEEE JBHI 23", (3_503_297,) * 3,
                     "seran.models.fscwrn:FSCWRN", adds_bicubic=True),
    "csn": System("CSN", 2019, "Zhao et al., IEEE TIP 28", (13_644_801, 16_595_201, 16_005_121),
                  "seran.models.csn:CSN"),
    "edsr": System("EDSR, 40 blocks", 2017, "Lim et al., CVPRW", (3_140_097, 3_324_737, 3_287_809),
                   "seran.models.seran:SERAN", {"positions": ()}),
    "seab": System("SEAB", 2021, "Zhang et al., CVPR", (3_148_417, 3_333_057, 3_296_129),
                   "seran.models.seran:SERAN", {"reasoning": False}),
    "seran": System("SERAN", 2021, "Zhang et al., CVPR", (3_165_057, 3_349_697, 3_312_769),
                    "seran.models.seran:SERAN"),
    "fast": System("fast", 2026, "seran's own: plain 3x3 convolutions, see seran.models.fast",
                   (379_396, 385_401, 393_808), "seran.models.fast:Fast"),
}  # fmt: skip


def networks() -> list[str]:
    """The names of the methods that are networks."""
    return [name for name, system in SYSTEMS.items() if system.network]


def title(name: str) -> str:
    """What the paper's tables call a method; its self-ensemble has a ``+`` there, too."""
    return SYSTEMS[name.removesuffix("+")].title + "+" * name.endswith("+")
