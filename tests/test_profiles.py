"""Slice selection: properties of the operator, places, edges, and what radifox-utils makes of the same."""

import os
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seran.errors import BadInput
from seran.profiles import KINDS, Profile, selection, taps, unseen

RADIFOX = os.environ.get("SERAN_RADIFOX", "")
"""The program degrade-fourier of radifox-utils, in an environment of its own; its like lies beside it."""
factors, profiles = st.floats(1.2, 8), st.builds(Profile, st.sampled_from(KINDS), st.floats(0.6, 1.2))


@settings(deadline=None)  # the first example waits for scipy.signal
@given(st.integers(9, 70), factors, profiles)
def test_what_is_constant_stays_so_up_to_the_edges(n: int, factor: float, profile: Profile) -> None:
    weights = selection(n, factor, profile)
    assert weights.shape == (max(1, round(n / factor)), n)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-9)


@settings(deadline=None)
@given(st.integers(40, 90), factors, profiles)
def test_slices_lie_about_the_middle_of_the_voxels(n: int, factor: float, profile: Profile) -> None:
    """Mirrored voxels give mirrored slices, and a ramp is sampled at the middle of each slice."""
    weights = selection(n, factor, profile)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-9)
    at, m = np.arange(float(n)), len(weights)
    expected = (n - 1) / 2 + factor * (np.arange(m) - (m - 1) / 2)
    reach = 1.5 * factor + 4  # of the profile, and of the spline between voxels
    inner = (expected > reach) & (expected < n - 1 - reach)
    np.testing.assert_allclose((weights @ at)[inner], expected[inner], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [3.0, 4.6, 9.0])
def test_the_thickness_is_the_width_at_half_of_the_maximum(kind: str, width: float) -> None:
    made = taps(kind, width)  # type: ignore[arg-type]
    assert made.sum() == pytest.approx(1)
    middle, at = len(made) // 2, np.arange(len(made) // 2 + 1)
    half = made[middle:] / made[middle]
    assert np.interp(0.5, half[::-1], at[::-1]) == pytest.approx(width / 2, abs=0.26)


@settings(deadline=None)
@given(st.integers(20, 70), factors, profiles)
def test_what_goes_beyond_the_smoothest_is_not_seen_and_nothing_of_what_is_flat(
    n: int, factor: float, profile: Profile
) -> None:
    see, beyond = selection(n, factor, profile), unseen(n, factor, profile)
    assert np.abs(see @ beyond).max() < 1e-8
    ramp = np.stack([np.full(n, 310.0), 310 + 7 * np.arange(n)], 1)
    assert np.abs(beyond @ ramp).max() < 1e-6
    np.testing.assert_allclose(beyond @ beyond, beyond, atol=1e-7)
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    smooth, other = x - beyond @ x, x - beyond @ rng.normal(size=n)
    np.testing.assert_allclose(see @ smooth, see @ x, atol=1e-8)  # slices see them alike,
    curvature = [float(np.square(np.diff(one, 2)).sum()) for one in (smooth, other, x)]
    assert curvature[0] <= min(curvature) + 1e-9  # and none of these is smoother


def test_profiles_that_cannot_be() -> None:
    for thickness in (0.0, np.nan, 3.0):
        with pytest.raises(BadInput, match=r"0\.2 to 2 times"):
            Profile("rect", thickness)
    with pytest.raises(BadInput, match="at least a voxel apart"):
        selection(20, 0.9, Profile())


def test_a_pulse_as_sigpy_has_it() -> None:
    """What sigpy 0.1 simulates for ``dzrf(128, 16, "ex", "ls", 0.01, 0.01)``, as radifox-utils has it."""
    made = taps("slr", np.sqrt(24.0))  # of 5 mm slices of 1 mm voxels
    half = [0.19895, 0.19895, 0.19866, 0.00141, 0.00102, 0.00049]
    np.testing.assert_allclose(made, [*half[:0:-1], *half], atol=1e-3)


@pytest.mark.skipif(not RADIFOX, reason="SERAN_RADIFOX names no degrade-fourier of radifox-utils")
@pytest.mark.parametrize("kind", ["slr", "gaussian"])
@pytest.mark.parametrize(("thickness", "distance"), [(3.0, 3.0), (4.0, 5.0), (6.3, 5.5), (2.2, 2.7)])
def test_slice_selection_agrees_with_radifox(
    kind: str, thickness: float, distance: float, tmp_path: Path
) -> None:
    x = np.cumsum(np.random.default_rng(0).normal(size=(5, 4, 60)), 2).astype(np.float32)
    nib.Nifti1Image(x, np.diag([1.0, 1, 1, 1])).to_filename(tmp_path / "x.nii")
    name = {"slr": "rf-pulse-slr"}.get(kind, kind)
    program = Path(RADIFOX).with_name("degrade-slice-selection")
    words = [program, "--in-fpath", tmp_path / "x.nii", "--out-hr-fpath", tmp_path / "h.nii"]
    words += ["--out-lr-fpath", tmp_path / "l.nii", "--sizing-edge", "none", "--slice-profile", name]
    words += ["--slice-thickness", str(thickness), "--slice-separation", str(distance)]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    made = x @ selection(60, distance, Profile(kind, thickness / distance)).T  # type: ignore[arg-type]
    expected = nib.load(tmp_path / "l.nii").get_fdata()  # type: ignore[attr-defined]
    assert np.abs(made - expected).max() < 1e-3 * np.ptp(x)
