"""What `seran evaluate` reports: scores per volume and method, their means, and paired comparisons."""

import csv
import dataclasses
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from seran import facts
from seran.progress import plain
from seran.quality import metrics, paired
from seran.quality.paired import Row

BAR = "\\|"
"""What a | is in a table of Markdown, where it does not end a cell."""


def _line(text: object) -> str:
    """A text from a list of scans or a file's name on one line without control characters."""
    return " ".join(plain(str(text)).split())


def _cells(values: Iterable[object]) -> str:
    """A row of a table in Markdown, in which nothing ends a cell."""
    return f"| {' | '.join(_line(value).replace('|', BAR) for value in values)} |"


@dataclass(frozen=True)
class Report:
    """Scores: one row per volume and method."""

    protocol: list[str]  # how the pairs and the scores were made, in words
    baseline: str  # the method that gains are counted from
    methods: list[Row]  # what was run, without the predictors
    rows: list[Row]
    """Per volume and method: volume, name, subject, repository, contrast, method, voxels that count, the
    metrics, and the seconds that it took."""

    def json(self) -> str:
        """Everything, with the paired comparisons."""
        return facts.dumps({**dataclasses.asdict(self), "paired": self.paired()}, indent=1)

    def paired(self) -> list[Row]:
        """Differences from the baseline, see `seran.quality.paired`."""
        return paired.paired(self.rows, self.baseline, metrics.METRICS)

    def csv(self) -> str:
        """A row per contrast, subject and method: means over the subject's volumes, less the baseline's."""
        groups: dict[tuple[str, ...], list[Row]] = {}
        for r in self.rows:
            groups.setdefault((r["contrast"], *paired.subject_of(r), r["method"]), []).append(r)
        means = {
            key: {m: float(np.mean([r[m] for r in group])) for m in metrics.METRICS}
            for key, group in groups.items()
        }
        head = ["contrast", "repository", "subject", "method", "volumes", *metrics.METRICS]
        head += [f"{m}_less_{self.baseline}" for m in metrics.METRICS]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(head)
        for key, mean in sorted(means.items(), key=lambda item: item[0][:3]):
            contrast, repository, subject, _ = key
            base = means[contrast, repository, subject, self.baseline]
            differences = [mean[m] - base[m] if np.isfinite(mean[m] + base[m]) else "" for m in mean]
            named = map(_line, key)
            table.writerow([*named, len(groups[key]), *mean.values(), *differences])
        return text.getvalue()

    def means(self) -> list[Row]:
        """Mean over the volumes of a contrast, per method, in the rows' order."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for r in self.rows:
            groups.setdefault((r["contrast"], r["method"]), []).append(r)
        return [
            {"contrast": contrast, "method": name, "volumes": len(group)}
            | {m: float(np.mean([r[m] for r in group])) for m in metrics.METRICS}
            for (contrast, name), group in sorted(groups.items(), key=lambda item: item[0][0])
        ]

    def markdown(self) -> str:
        """The protocol, the table of means and the table of volumes."""
        psnr = {"method": "{method}", "PSNR": "{psnr:.2f}", f"over {self.baseline}": "{gain:+.2f}"}
        more = {"SSIM 3-D": "{ssim_volume:.4f}", "SSIM 2-D": "{ssim_slice:.4f}"}
        more |= {"HFEN": "{hfen:.4f}", "GMSD": "{gmsd:.4f}"}
        means = {"contrast": "{contrast}", "volumes": "{volumes}", **psnr, **more}
        volumes = {"volume": "{volume}", "contrast": "{contrast}", **psnr}
        lines = [f"- {_line(text)}" for text in self.protocol]
        lines += self._table(means, self.means(), "contrast") + self._paired()
        lines += self._table(volumes, self.rows, "name")
        return "\n".join(lines) + "\n"

    def _paired(self) -> list[str]:
        """The table of differences; none if there is nothing to compare."""
        groups: dict[tuple[str, str, int], list[str]] = {}
        for r in self.paired():
            form, cell = "+.2f" if r["metric"] == "psnr" else "+.4f", "–"
            if r["difference"] is not None:
                cell = f"{r['difference']:{form}}"
                cell += "" if r["low"] is None else f" [{r['low']:{form}}, {r['high']:{form}}]"
                cell += "" if r["p"] is None else f" p {r['p']:.2g}"
            groups.setdefault((r["contrast"], r["method"], r["subjects"]), []).append(cell)
        if not groups:
            return []
        head = ["contrast", f"method less {self.baseline}", "subjects"]
        head += ["PSNR", "SSIM 3-D", "SSIM 2-D", "HFEN", "GMSD"]
        rows = [_cells((*key, *cells)) for key, cells in groups.items()]
        return ["", _cells(head), "|---" * len(head) + "|", *rows]

    def _table(self, columns: dict[str, str], rows: list[Row], key: str) -> list[str]:
        """Columns by title, each with the format of its cells; rows with one ``key`` share a baseline."""
        base = {r[key]: r["psnr"] for r in rows if r["method"] == self.baseline}
        stated = [{**r, "gain": r["psnr"] - base[r[key]]} for r in rows]
        cells = [_cells(form.format(**r) for form in columns.values()) for r in stated]
        return ["", _cells(columns), "|---" * len(columns) + "|", *cells]
