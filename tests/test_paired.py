"""Paired differences: their mean, interval over subjects and p, and what is left out for want of subjects."""

import numpy as np
import pytest

from seran.quality import paired
from seran.quality.scores import Report

METRICS = ("psnr", "ssim_volume", "ssim_slice", "hfen", "gmsd")


def rows(gains: dict[tuple[str, str, str], list[float]], method: str = "ours") -> list[paired.Row]:
    """A baseline of changing PSNR and what a method gains over it: per contrast, repository and subject."""
    rng, found = np.random.default_rng(0), []
    for (contrast, repository, subject), values in gains.items():
        for i, gain in enumerate(values):
            about = {"name": f"{repository}-{subject}-{contrast}-{i}", "contrast": contrast}
            about |= {
                "volume": str(i),
                "subject": subject,
                "repository": repository,
                "voxels": 8,
                "seconds": 1,
            }
            base = dict(zip(METRICS, (rng.uniform(25, 40), 0.9, 0.8, 0.3, 0.1), strict=True))
            found.append({**about, "method": "bicubic", **base})
            found.append({**about, "method": method, **base, "psnr": base["psnr"] + gain})
    return found


SEVEN = {("T1", "lab", f"s{i}"): [gain] for i, gain in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -0.5))}


def only(found: list[paired.Row], **wanted: object) -> paired.Row:
    [one] = [r for r in found if all(r[name] == value for name, value in wanted.items())]
    return one


def test_the_difference_is_paired_and_its_p_is_known() -> None:
    """Signed-rank sum 1 of 7: two of 2⁷ sign patterns have a sum of 1 or less, so p is 4 / 128."""
    found = only(paired.paired(rows(SEVEN), "bicubic", METRICS), metric="psnr")
    assert found["difference"] == pytest.approx(20.5 / 7)
    assert found["p"] == pytest.approx(4 / 128)
    assert (found["subjects"], found["volumes"]) == (7, 7)
    draws = np.random.default_rng(5).choice([1, 2, 3, 4, 5, 6, -0.5], (20_000, 7)).mean(1)
    np.testing.assert_allclose((found["low"], found["high"]), np.percentile(draws, (2.5, 97.5)), atol=0.1)
    same = only(paired.paired(rows(SEVEN), "bicubic", METRICS), metric="hfen")
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def test_a_subject_counts_once_however_many_scans_it_has() -> None:
    """Six scans of each of two subjects say no more than two subjects do; p is of subjects' means."""
    two = {("T1", "lab", f"s{i}"): [1.0, 1.1, 0.9, 1.0, 1.05, 1.2] for i in range(2)}
    found = only(paired.paired(rows(two), "bicubic", METRICS), metric="psnr")
    assert (found["volumes"], found["subjects"], found["low"], found["p"]) == (12, 2, None, None)
    repeated = {key: values * 4 for key, values in SEVEN.items()}
    once, often = (only(paired.paired(rows(g), "bicubic", METRICS), metric="psnr") for g in (SEVEN, repeated))
    assert often["p"] == pytest.approx(once["p"])
    assert often["low"] == pytest.approx(once["low"])


def test_namesakes_of_two_repositories_are_two_subjects() -> None:
    found = paired.paired(
        rows({("T1", "a", "sub-01"): [1.0], ("T1", "b", "sub-01"): [2.0]}), "bicubic", METRICS
    )
    assert only(found, metric="psnr")["subjects"] == 2


@pytest.mark.parametrize(("count", "enough"), [(2, False), (3, False), (5, False), (6, True)])
def test_few_subjects_have_neither_interval_nor_p(count: int, enough: bool) -> None:
    few = dict(list(SEVEN.items())[:count])
    found = only(paired.paired(rows(few), "bicubic", METRICS), metric="psnr")
    assert found["difference"] == pytest.approx((count + 1) / 2)
    assert [found[name] is not None for name in ("low", "high", "p")] == [enough] * 3


def test_of_three_subjects_an_interval_would_be_their_range() -> None:
    """Why there is none: both of its ends are drawn in 1 of 27 samples each, more than 2.5 %."""
    assert paired.interval([1.0, 2.0, 4.0], ["a", "b", "c"]) == (1, 4)


def test_contrasts_apart_and_together() -> None:
    """A subject with two contrasts is one subject of all."""
    both = SEVEN | {("T2", "lab", f"s{i}"): [0.5] for i in range(3)}
    found = paired.paired(rows(both), "bicubic", METRICS)
    assert only(found, contrast="all", metric="psnr")["subjects"] == 7
    assert only(found, contrast="T2", metric="psnr")["difference"] == pytest.approx(0.5)
    assert not [r for r in paired.paired(rows(SEVEN), "bicubic", METRICS) if r["contrast"] == "all"]


def test_what_is_not_finite_is_left_out() -> None:
    perfect = rows(SEVEN)
    perfect[1]["psnr"] = float("inf")
    found = paired.paired(perfect, "bicubic", METRICS)
    assert only(found, metric="psnr")["difference"] is None
    assert only(found, metric="hfen")["difference"] == 0
    report = Report([], "bicubic", [], perfect)
    assert "| T1 | ours | 7 | – |" in report.markdown()
    assert "inf" in report.csv()


def test_the_table_of_subjects() -> None:
    two = {("T1", "lab", "s,1"): [1.0, 3.0], ("T1", "lab", "s2"): [0.25]}
    lines = Report([], "bicubic", [], rows(two)).csv().splitlines()
    assert lines[0].startswith(
        "contrast,repository,subject,method,volumes,psnr,ssim_volume,ssim_slice,hfen,gmsd,"
    )
    assert lines[0].split(",")[-5] == "psnr_less_bicubic"
    assert len(lines) == 5
    assert lines[2].startswith('T1,lab,"s,1",ours,2,')
    assert float(lines[2].split(",")[-5]) == pytest.approx(2)
