"""EXPECTED.md: the paper's number beside ours, for every table that has been made.

    python paper/expected.py        # from the table*.json beside it

The paper's are of IXI, one network per contrast, trained long; ours of another data set at a stated budget.
So absolute values cannot be compared; gains and differences between rows can, with care.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import tyro
from published import CONTRASTS, TABLE1, TABLE2, TABLE3, TABLE4
from results import markdown, placed

from seran import files
from seran.systems import title

HEAD = """# The paper's numbers beside ours

Made by `python paper/expected.py` from the tables' JSON files. Paper: IXI (500 volumes to train, 70 to test,
one network per contrast), PSNR in dB, metrics and number of epochs not stated. Ours: the protocol above each
table. The data differ, so absolute values are not comparable; gains over bicubic and differences between rows
are, and a short budget keeps large networks from what they can do. "–": not measured.
"""


NEEDED = {"table1", "table2", "table3-x2", "table3-x3", "table3-x4", "table3-x2-minutes", "table4"}
"""The tables that `claims` is about."""


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


def span(values: Iterable[float], form: str = "+.2f") -> str:
    """From the least to the greatest."""
    found = sorted(values)
    return f"{found[0]:{form}} to {found[-1]:{form}}"


def claims(made: dict[str, dict[str, Any]]) -> list[str]:
    """What of the paper holds in the tables as they are; who makes other tables reads these words again.

    Args:
        made: the JSON of tables by their names; `NEEDED` are needed.
    """
    one, two = (
        {v: {c: fmean(r["means"][c]["psnr"] for r in made[t]["results"].values() if r["variant"] == v)
             for c in CONTRASTS} for v in {r["variant"] for r in made[t]["results"].values()}}
        for t in ("table1", "table2")
    )  # fmt: skip
    three = {k: made[f"table3-x{k}"]["results"] for k in (2, 3, 4)}
    gains = {
        k: {name: {c: row["means"][c]["gain"] for c in CONTRASTS} for name, row in rows.items()}
        for k, rows in three.items()
    }
    blocks = span(one["seran"][c] - one["edsr"][c] for c in CONTRASTS)
    printed = span(TABLE1["seran"][i] - TABLE1["edsr"][i] for i in range(3))
    places = span(v[c] - two["seran"][c] for name, v in two.items() for c in CONTRASTS if name != "seran")
    took = {name: median(row["x2"]) for name, row in made["table4"]["results"].items()}
    paper = {name: TABLE4[name][0] for name in ("seran", "rdn", "vdsr")}
    few = {name: made["table3-x2-minutes"]["results"][name]["patches"] for name in ("fscwrn", "rdn", "csn")}

    def over(better: str, worse: str) -> str:
        """By how many dB one is above another, over contrasts, at every scale that has both."""
        found = {
            k: span(rows[better][c] - rows[worse][c] for c in CONTRASTS)
            for k, rows in gains.items()
            if {better, worse} <= rows.keys()
        }
        return ", ".join(f"{dB} dB at x{k}" for k, dB in found.items())

    seen = ", ".join(f"{rows['seran']['patches']:,} at x{k}" for k, rows in three.items())
    return [
        "## Which of the paper's claims hold here",
        "",
        f"**These hold.** Each block adds something on every contrast (Table 1), but {blocks} dB where the "
        f"paper has {printed}: so short a training cannot tell how much. With the same patches for each "
        f"(Table 3: {seen}) SRCNN is below VDSR and VDSR below the networks of 40 blocks: SERAN is above "
        f"SRCNN by {over('seran', 'srcnn')}, above VDSR by {over('seran', 'vdsr')}, above NLM by "
        f"{over('seran', 'nlm')}. The self-ensemble helps, by {over('seran+', 'seran')}. SERAN takes a "
        f"{took['rdn'] / took['seran']:.0f}th of RDN's time on a CPU (the paper: a "
        f"{paper['rdn'] / paper['seran']:.0f}th on its GPU). Trained for longer, as the shipped weights are, "
        "it gains more than any other network here at any budget ([evaluation](../docs/evaluation.md)).",
        "",
        "**These do not, or cannot be told.** More places of attention make no difference "
        f"({places} dB over the last place alone, Table 2). Whether attention and reasoning help cannot be "
        f"told: SERAN is off EDSR by {over('seran', 'edsr')}, SEAB by {over('seab', 'edsr')}, about what two "
        f"seeds differ by. IDN, in the paper above VDSR, is off SRCNN by {over('idn', 'srcnn')}: it begins "
        "slowly. FSCWRN, RDN and CSN have no row by equal patches, VDSR none at x3 and x4; in 12 minutes the "
        f"first three saw {span(few.values(), ',')} patches, from which nothing follows, and at equal "
        f"minutes small networks win. SERAN is not faster than VDSR on a CPU ({took['seran']:.1f} s against "
        f"{took['vdsr']:.1f}; the paper: {paper['seran']:.1f} against {paper['vdsr']:.1f}). PSNR itself, on "
        "other scans, cannot be compared.",
        "",
    ]


def text(folder: Path) -> str:
    """EXPECTED.md for the tables in a folder."""
    parts = {
        "table1": lambda made: ablation(made, TABLE1, "edsr"),
        "table2": lambda made: ablation(made, TABLE2, "seran"),
        **{f"table3-x{s}": lambda made, s=s: systems(made, TABLE3[s]) for s in (2, 3, 4)},
        "table3-x2-minutes": lambda made: systems(made, TABLE3[2]),
        "table4": seconds,
    }
    paths = {name: folder / f"{name}.json" for name in parts}
    made = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    lines = [HEAD, *(claims(made) if made.keys() >= NEEDED else [])]
    for name, part in parts.items():
        if name in made:
            lines += [f"## {name}", "", *part(made[name]), ""]
        else:
            lines += [f"## {name}", "", f"Not made yet: see `paper/{name.split('-')[0]}.py`.", ""]
    return "\n".join(lines).rstrip() + "\n"


def main(folder: Path = Path(__file__).parent, out: Path | None = None) -> None:
    """Write EXPECTED.md.

    Args:
        folder: of the tables.
        out: folder of EXPECTED.md; that of the tables if none is named.
    """
    with files.atomic(placed((out or folder) / "EXPECTED.md")) as part:
        part.write_text(text(folder))


if __name__ == "__main__":
    tyro.cli(main)
