"""Pages of thin slices: what is drawn lies where there is room for it, and says what its colours are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import zoom

from seran import grid, kspace
from seran.acquisition import NONE
from seran.profiles import Profile
from seran.quality import checks, report
from seran.quality.provenance import Acquired, Provenance
from seran.quality.report import Side
from seran.quality.spectrum import ACROSS, IN_PLANE, spectra
from seran.volume import Volume
from tests import browser
from tests.conftest import oblique, phantom


def thin(plane: int = 1) -> tuple[Volume, Volume, Provenance, Volume]:
    """12 slices 4.8 mm apart, 57 made of them, and how far these may be off: 24 % of the range at most."""
    data = zoom(phantom((16, 15, 6)), (6, 6, 2), order=1).astype(np.float32)
    before = Volume(data, oblique((1.0, 1.0, 4.8)))
    shape = np.array([96 * plane, 90 * plane, 57])
    fine = zoom(data, shape / data.shape, order=1).astype(np.float32)
    after = Volume(fine, grid.with_counts(before.grid, shape).affine)
    seen = Acquired((1.0, 1.0), NONE, 0.01, None, True, False)
    made = Provenance((plane, plane), 2, "td", True, True, seen, Profile("slr", 0.83))
    half = np.linspace(0, 0.24 * np.percentile(data, 99.9), fine.size, dtype=np.float32).reshape(shape)
    return before, after, made, Volume(half, after.affine)


@contextmanager
def opened(tmp_path: Path, size: tuple[int, int]) -> Iterator[browser.Browser]:
    before, after, made, off = thin()
    found = checks.all_of(before, after, made)
    text = report.page(Side("thick", before), Side("thin", after), found, made, {}, off=off)
    (tmp_path / "page.html").write_text(text)
    with browser.browser(tmp_path, size) as window:
        window.open(tmp_path / "page.html")
        window.wait("document.getElementById('stage').dataset.ready")
        yield window


def test_power_along_an_axis_is_that_of_what_is_there() -> None:
    """A wave has its power at its frequency, on grids of two spacings the same."""
    found = []
    for spacing in (1.0, 4.0):
        at = np.arange(0, 96, spacing)
        stack = np.broadcast_to(np.sin(2 * np.pi * at / 16)[:, None, None], (len(at), 3, 4))
        frequency, power = kspace.along(stack.astype(np.float32), spacing)
        assert frequency[power.argmax()] == pytest.approx(1 / 16)
        assert frequency[-1] == pytest.approx(1 / (2 * spacing))
        found.append(power.max())
    assert found[0] == pytest.approx(found[1], abs=0.5)


@pytest.mark.parametrize("plane", [1, 2])
def test_thin_slices_have_the_spectrum_across_them(plane: int) -> None:
    """And that in the plane only where this is finer, too."""
    before, after, made, _ = thin(plane)
    told = spectra(before, after, made, grid.world_axes(before.affine)[2])
    assert told.count(ACROSS) == 1
    assert told.count(IN_PLANE) == told.count("in the plane of the slices") == plane - 1
    alone = spectra(before, after, None, grid.world_axes(before.affine)[2])
    assert (alone.count(ACROSS), alone.count(IN_PLANE)) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(900, 700), (1600, 900)])
def test_labels_stay_in_their_planes_and_the_width_is_used(tmp_path: Path, size: tuple[int, int]) -> None:
    browser.needed(report.VIEWER / "niivue.umd.js")
    with opened(tmp_path, size) as window:
        labels = window.run("""
            const box = (e) => { const r = e.getBoundingClientRect(); return [r.left, r.right]; };
            return [...document.querySelectorAll('.divider')].map((d) => {
                const [left, right] = box(d), cut = (left + right) / 2, wide = Number(d.dataset.width);
                return [cut - wide * Number(d.getAttribute('aria-valuenow')) / 100, wide,
                    [...d.children].filter((s) => !s.hidden && s.offsetWidth).map(box)];
            });""")
        assert any(drawn for _, _, drawn in labels)
        for left, wide, drawn in labels:
            for first, last in drawn:
                assert left - 1 <= first < last <= left + wide + 1
        ends = window.run("""
            const right = (id) => document.getElementById(id).getBoundingClientRect().right;
            const hint = document.querySelector('#beside .hint').getBoundingClientRect();
            return [right('stage'), right('beside'), hint.left, hint.right, hint.top];""")
        stage, whole, left, right, top = ends
        if whole - stage > 300:  # what the planes leave is for the words about them
            assert stage < left < right <= whole + 1
            assert top < 600
        assert window.run("return document.documentElement.scrollWidth") <= size[0]


@pytest.mark.slow
def test_colours_have_a_key_that_reaches_what_is_drawn(tmp_path: Path) -> None:
    browser.needed(report.VIEWER / "niivue.umd.js")
    with opened(tmp_path, (1200, 900)) as window:

        def key() -> tuple[str, list[str]]:
            legend = "document.getElementById('legend')"
            bars = f"return [...{legend}.querySelectorAll('.bar')].map((bar) => bar.className)"
            return window.run(f"return {legend}.textContent"), window.run(bars)

        assert key() == ("", [])
        window.run("document.getElementById('changes').click()")
        window.wait("!document.getElementById('difference-data')")
        assert key() == ("−10 %−2 %, 2 %10 % and more of the range", ["bar darker", "bar brighter"])
        for what in ("uncertainty", "difference", "uncertainty"):
            window.run(f"document.getElementById('what').value = '{what}'")
            window.run("document.getElementById('what').dispatchEvent(new Event('change'))")
        window.wait("!document.getElementById('uncertainty-data')")
        assert key() == ("2 %25 % and more of the range", ["bar unsure"])
