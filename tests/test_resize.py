import json
from pathlib import Path

import numpy as np
import pytest

from seran.resize import imresize, matrix, phases

GOLDEN = json.loads((Path(__file__).parent / "golden" / "imresize.json").read_text())
MATLAB_IN = """116 227 153 69 146 194 59 130 139 106  2 47 137 249 90 75 16 24 158 44
155 68 46 84 166 156 69 204 32 152  71 221 137 230 210 153 192 115 30 118
107 143 108 52 51 73 101 21 175 90  54 158 143 77 26 168 113 229 165 225
9 47 133 135 130 207 236 43 19 73  129 60 59 243 64 181 249 56 32 86"""
MATLAB_HALF = "105 140 126 81 109 110 134 153 114 93 108 108 94 127 146 67 126 162 149 62"


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{len(c['input'])}-by-{c['scale']:.2f}")
def test_golden_values(case: dict) -> None:
    image, expected = np.array(case["input"], float), np.array(case["output"])
    np.testing.assert_allclose(imresize(image, expected.shape), expected, atol=1e-6)


def test_values_printed_by_matlab() -> None:
    """An 8x10 uint8 image halved by MATLAB, which rounds some halves the other way: within one."""
    image = np.array(MATLAB_IN.split(), float).reshape(8, 10)
    expected = np.array(MATLAB_HALF.split(), float).reshape(4, 5)
    assert np.abs(imresize(image, (4, 5)) - expected).max() < 1


@pytest.mark.parametrize("size", [5, 12, 21])
@pytest.mark.parametrize("n", [7, 12, 16])
def test_rows_sum_to_one(n: int, size: int) -> None:
    np.testing.assert_allclose(matrix(n, size).sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_phases_are_the_rows_of_the_matrix(scale: int) -> None:
    n, i = 12, 5
    rows = matrix(n, scale * n)[scale * i : scale * (i + 1), i - 2 : i + 3]
    np.testing.assert_allclose(rows, phases(scale), atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_ramp_keeps_its_millimetres(factor: int) -> None:
    """Away from the border a linear ramp is reproduced where the corner anchor says its samples lie."""
    high = np.arange(96.0)[None].repeat(12, 0)
    low = imresize(high, (12 // factor, 96 // factor))[0]
    expected = (np.arange(96 // factor) + 0.5) * factor - 0.5
    np.testing.assert_allclose(low[4:-4], expected[4:-4], atol=1e-9)
