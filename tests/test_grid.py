"""Grids: where voxels lie, and what the grid of a result has in common with the scan's."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seran
from seran import grid
from seran.api import Scan
from seran.volume import Volume
from tests.conftest import oblique, shifted
from tests.test_formats import blob, centroid

SHAPE = (26, 34, 5)
SPACINGS = st.tuples(*[st.floats(0.3, 6)] * 3)


@given(spacing=SPACINGS, left=st.booleans(), k=st.integers(1, 4), j=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_the_corner_anchor_keeps_the_field_of_view(
    spacing: tuple[float, float, float], left: bool, k: int, j: int
) -> None:
    affine = oblique(spacing, left)
    finer = grid.rescale(affine, (k, j, 1), "corner")
    shape = (SHAPE[0] * k, SHAPE[1] * j, SHAPE[2])
    np.testing.assert_allclose(grid.corners(shape, finer), grid.corners(SHAPE, affine), atol=1e-9)


@pytest.mark.parametrize("anchor", ["corner", "center"])
def test_rescaling_back_inverts(anchor: grid.Anchor) -> None:
    there = grid.rescale(oblique(), (3, 3, 1), anchor)
    back = grid.rescale(there, (1 / 3, 1 / 3, 1), anchor)
    np.testing.assert_allclose(back, oblique(), atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_anchors_differ_by_half_of_k_minus_one_fine_voxels(k: int) -> None:
    corner, center = (grid.rescale(oblique(), (k, k, k), a) for a in ("corner", "center"))
    apart = np.linalg.inv(corner) @ center[:, 3]
    np.testing.assert_allclose(apart[:3], (k - 1) / 2, atol=1e-9)


def test_nibabel_rescale_affine_is_not_this() -> None:
    """The reason for `rescale`: nibabel's function moves an even field of view."""
    ours = grid.rescale(np.eye(4), (2, 2, 2), "corner")
    theirs = nib.affines.rescale_affine(np.eye(4), (4, 4, 4), (0.5, 0.5, 0.5), (8, 8, 8))
    assert np.abs(ours - theirs).max() > 0.2


@pytest.mark.parametrize(
    ("spacing", "plane", "axis"),
    [
        ((0.9, 0.8, 3.3), "auto", 2),  # thick third axis
        ((3.3, 0.8, 0.9), "auto", 0),  # thick first axis: sagittal slices
        ((1.0, 1.0, 1.0), "auto", 2),  # isotropic: the third axis
        ((1.0, 1.333, 1.333), "auto", 2),  # tie of the two coarse axes: the later one
        ((1.333, 1.0, 1.333), "auto", 2),
        ((1.333, 1.333, 1.0), "auto", 1),
        ((0.7001, 0.7, 0.7), "auto", 2),  # rounding noise is a tie
        ((0.9, 0.8, 3.3), "axial", 2),
        ((0.9, 0.8, 3.3), "coronal", 1),
        ((0.9, 0.8, 3.3), "sagittal", 0),
    ],
)
def test_slice_axis(spacing: tuple[float, float, float], plane: grid.Plane, axis: int) -> None:
    for left in (False, True):
        assert grid.slice_axis(oblique(spacing, left), SHAPE, plane) == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_the_slice(axis: int) -> None:
    """Whatever the spacings say: here the pixels are coarser than the slice is thick."""
    shape = [26, 34, 30]
    shape[axis] = 1
    assert grid.slice_axis(oblique((1.5, 1.5, 1.5)), (shape[0], shape[1], shape[2])) == axis
    thin = [1.5, 1.5, 1.5]
    thin[axis] = 1.0
    assert grid.slice_axis(oblique((thin[0], thin[1], thin[2])), (shape[0], shape[1], shape[2])) == axis


def test_named_planes_follow_the_world_not_the_array() -> None:
    """Columns of the affine permuted: the array's first axis runs superior, its last runs right."""
    affine = oblique()[:, [2, 1, 0, 3]]
    assert grid.world_axes(affine) == (2, 1, 0)
    assert [grid.slice_axis(affine, SHAPE, p) for p in ("axial", "coronal", "sagittal")] == [0, 1, 2]


def test_spacing() -> None:
    np.testing.assert_allclose(grid.spacing(oblique()), (0.9, 0.8, 3.3))


def middle(shape: tuple[int, ...], affine: grid.Affine) -> np.ndarray:
    return affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]


@pytest.mark.parametrize("acquisition", ["auto", "bicubic"])
@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        *[({"scale": scale}, "anchor") for scale in (1, 2, 3, 4)],
        ({"scale": 1.5}, "middle"), ({"spacing": 0.55}, "middle"), ({"like": "OTHER"}, "none"),
    ],
)  # fmt: skip
def test_what_every_grid_has_in_common_with_the_scans(
    asked: dict[str, Any], kept: str, acquisition: str, tmp_path: Path
) -> None:
    """Native weights keep the centre of the first voxel, bicubic ones the corners; any other grid neither."""
    affine, shape = oblique((0.9, 0.8, 1.3)), (30, 33, 20)
    if asked.get("scale") == 1 and acquisition == "bicubic":
        pytest.skip("only native weights")
    other = shifted(affine, (1.7, 2.2, 0.4)) @ np.diag([0.6, 0.6, 1, 1])
    if "like" in asked:
        nib.save(nib.Nifti1Image(np.zeros((31, 37, 17), np.int16), other), tmp_path / "other.nii")
        asked = {"like": tmp_path / "other.nii"}
    scan = Scan(Volume(blob(shape), affine))
    made = seran.upscale(scan, scanner=seran.Scanner(acquisition), **asked)
    moved = np.linalg.norm(grid.corners(made.data.shape, made.affine) - grid.corners(shape, affine), axis=1)
    first = np.linalg.norm(made.affine[:3, 3] - affine[:3, 3])
    centre = np.linalg.norm(middle(made.data.shape, made.affine) - middle(shape, affine))
    anchor = {"auto": "center", "bicubic": "corner"}[acquisition]
    assert made.record.grid_anchor == (anchor if kept == "anchor" else kept)
    if kept == "none":
        np.testing.assert_allclose(made.affine, other, atol=1e-5)
    else:
        bounds = {"center": first, "corner": moved.max(), "middle": centre}
        assert {name for name, off in bounds.items() if off < 1e-4} >= {made.record.grid_anchor}
        due = np.hypot(0.9, 0.8) * (1 - 1 / asked.get("scale", 1)) / 2  # of a voxel at the center anchor
        assert moved.max() < 0.4 if kept == "middle" else abs(moved.max() - due * (anchor == "center")) < 1e-4
    spots = [centroid(np.where(one.data > 90, one.data, 0), one.affine) for one in (made, scan)]
    np.testing.assert_allclose(*spots, atol=0.08)  # the two anchors differ by 0.2 mm and more


def test_the_axis_that_a_file_names_comes_before_spacing() -> None:
    """2-D EPI with pixels coarser than its slices are thick; a single slice and a stated plane still win."""
    affine = oblique((3.75, 3.75, 3.0))
    assert grid.slice_axis(affine, SHAPE) == 1
    assert grid.slice_axis(affine, SHAPE, named=2) == 2
    assert grid.slice_axis(affine, (1, 34, 30), named=2) == 0
    assert grid.slice_axis(affine, SHAPE, "sagittal", 2) == grid.slice_axis(affine, SHAPE, "sagittal")
