"""EXPECTED.md: the paper's number beside ours, for every table that has been made.

    python paper/expected.py        # from the table*.json beside it

The paper's are of IXI, one network per contrast, trained long; ours of another data set at a stated budget.
So absolute values cannot be compared; gains and differences between rows can, with care.
"""

import json
from pathlib import Path
from statistics import fmean, median
from typing import Any

import tyro
from published import CONTRASTS, TABLE1, TABLE2, TABLE3, TABLE4
from results import markdown

from seran import files
from seran.systems import title

HEAD = """# The paper's numbers beside ours

Made by `python paper/expected.py` from the tables' JSON files. Paper: IXI (500 volumes to train, 70 to test,
one network per contrast), PSNR in dB, metrics and number of epochs not stated. Ours: the protocol above each
table. The data differ, so absolute values are not comparable; gains over bicubic and differences between rows
are, and a short budget keeps large networks from what they can do. "–": not measured.
"""


def _stated(made: dict[str, Any]) -> list[str]:
    return [*(f"- {line}" for line in made["protocol"]), ""]


def ablation(made: dict[str, Any], printed: dict[str, tuple[float, float, float]], base: str) -> list[str]:
    """PSNR over one row, the paper's and ours, per contrast.

    Args:
        made: the table's JSON.
        printed: variant -> the paper's PSNR in dB per contrast.
        base: the variant that the others are compared with.
    """
    ours: dict[str, dict[str, float]] = {}
    for variant in printed:
        group = [r["means"] for r in made["results"].values() if r["variant"] == variant]
        if group:
            ours[variant] = {c: fmean(means[c]["psnr"] for means in group) for c in group[0]}
    columns = [text for c in CONTRASTS for text in (f"{c} paper", f"{c} ours")]
    lines = [*_stated(made), f"PSNR over {base}, in dB.", ""]
    rows = []
    for variant, numbers in printed.items():
        cells = []
        for contrast, number, zero in zip(CONTRASTS, numbers, printed[base], strict=True):
            known = base in ours and contrast in ours.get(variant, {})
            cells += [f"{number - zero:+.2f}"]
            cells += [f"{ours[variant][contrast] - ours[base][contrast]:+.2f}" if known else "–"]
        rows.append([variant, *cells])
    return lines + markdown(["variant", *columns], rows)


def systems(made: dict[str, Any], printed: dict[str, tuple[str, str, str]]) -> list[str]:
    """PSNR over bicubic, the paper's and ours, per contrast."""
    columns = [text for c in CONTRASTS for text in (f"{c} paper", f"{c} ours")]
    lines = [*_stated(made), "PSNR over bicubic, in dB; the paper's absolute PSNR / SSIM in brackets.", ""]
    rows = []
    for name in dict.fromkeys([*printed, *made["results"]]):
        cells = []
        for i, contrast in enumerate(CONTRASTS):
            theirs = printed.get(name)
            gain = theirs and float(theirs[i].split(" / ")[0]) - float(printed["bicubic"][i].split(" / ")[0])
            cells.append(f"{gain:+.2f} ({theirs[i]})" if theirs else "–")
            mean = made["results"].get(name, {}).get("means", {}).get(contrast)
            cells.append(f"{mean['gain']:+.2f}" if mean else "–")
        rows.append([title(name), *cells])
    return lines + markdown(["system", *columns], rows)


def seconds(made: dict[str, Any]) -> list[str]:
    """Seconds per volume: the paper's on its GPU, ours on the machine that the protocol names."""
    columns = [text for s in (2, 3, 4) for text in (f"x{s} paper", f"x{s} ours")]
    lines = [*_stated(made), "Paper: a Titan Xp.", ""]
    rows = []
    for name in dict.fromkeys([*TABLE4, *made["results"]]):
        cells = []
        for i, scale in enumerate(("x2", "x3", "x4")):
            found = made["results"].get(name, {}).get(scale)
            cells += [f"{TABLE4[name][i]:g}" if name in TABLE4 else "–"]
            cells += [f"{median(found):.2f}" if found else "–"]
        rows.append([title(name), *cells])
    return lines + markdown(["system", *columns], rows)


def text(folder: Path) -> str:
    """EXPECTED.md for the tables in a folder."""
    parts = {
        "table1": lambda made: ablation(made, TABLE1, "edsr"),
        "table2": lambda made: ablation(made, TABLE2, "seran"),
        **{f"table3-x{s}": lambda made, s=s: systems(made, TABLE3[s]) for s in (2, 3, 4)},
        "table4": seconds,
    }
    lines = [HEAD]
    for name, part in parts.items():
        path = folder / f"{name}.json"
        if path.is_file():
            lines += [f"## {name}", "", *part(json.loads(path.read_text())), ""]
        else:
            lines += [f"## {name}", "", f"Not made yet: see `paper/{name.split('-')[0]}.py`.", ""]
    return "\n".join(lines).rstrip() + "\n"


def main(folder: Path = Path(__file__).parent, out: Path | None = None) -> None:
    """Write EXPECTED.md.

    Args:
        folder: of the tables.
        out: folder of EXPECTED.md; that of the tables if none is named.
    """
    with files.atomic((out or folder) / "EXPECTED.md") as part:
        part.write_text(text(folder))


if __name__ == "__main__":
    tyro.cli(main)
