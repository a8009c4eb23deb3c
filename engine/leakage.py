"""Pixels that two sets of patches share: what makes an accuracy look better than it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from .datasets import DatasetScene, PatchDataset
from .rasters import Array, Grid
from .trainingground import coverage

# Pixels of a coverage held at once.
_STRIP_PIXELS = 4_000_000


@dataclass(frozen=True)
class SharedPixels:
    """What two sets of patches share.

    Attributes:
        pixels: distinct pixels of the first scene's grid that lie in patches of both sets.
        patches_a: patches of the first set that hold such a pixel.
        patches_b: patches of the second set, likewise.
        note: how the sets were compared where their grids differ, or why they could not be; otherwise empty.
    """

    pixels: int
    patches_a: int
    patches_b: int
    note: str = ""


def shared_pixels(
    a: PatchDataset, mask_a: npt.NDArray[np.bool_], b: PatchDataset, mask_b: npt.NDArray[np.bool_]
) -> SharedPixels:
    """Count the ground that patches of two sets share; memory does not grow with the number of patches' pixels.

    Patches are compared by place: two dates of one scene count as the same ground. Of a patch that reaches over the
    raster's edge (EDGE reflect) the part inside counts, which is where its pixels come from or come to lie again.

    Args:
        a: first dataset.
        mask_a: its patches to compare, bool ``(N,)``.
        b: second dataset, may be the first one.
        mask_b: its patches to compare.
    """
    note = ""
    scene_a, scene_b = a.description.scene, b.description.scene
    unknown = next((scene for scene in (scene_a, scene_b) if scene.width == 0), None)
    if unknown is not None:
        return SharedPixels(
            0, 0, 0, f"Where the patches of '{unknown.label}' lie is not known: they were not compared."
        )
    if not _same_crs(scene_a.crs, scene_b.crs):
        return SharedPixels(0, 0, 0, "The scenes have different CRS: their patches were not compared.")
    boxes_a, boxes_b = _footprints(a, mask_a), _footprints(b, mask_b)
    if not np.allclose(scene_a.transform, scene_b.transform, rtol=1e-9, atol=0):
        note = "The scenes lie on different grids: patches were compared by their map coordinates."
        boxes_b = _on_other_grid(boxes_b, _grid(scene_b), _grid(scene_a))
    if len(boxes_a) == 0 or len(boxes_b) == 0:
        return SharedPixels(0, 0, 0, note)
    top, left = np.maximum(boxes_a[:, :2].min(axis=0), boxes_b[:, :2].min(axis=0))
    bottom, right = np.minimum(boxes_a[:, 2:].max(axis=0), boxes_b[:, 2:].max(axis=0))
    pixels = 0
    touched_a, touched_b = np.zeros(len(boxes_a), dtype=bool), np.zeros(len(boxes_b), dtype=bool)
    if bottom > top and right > left:
        deep = max(1, _STRIP_PIXELS // int(right - left))
        for row in range(int(top), int(bottom), deep):
            window = np.array([row, left, min(row + deep, bottom), right])
            parts_a, parts_b = _cut_to(boxes_a, window), _cut_to(boxes_b, window)
            shape = int(window[2] - window[0]), int(right - left)
            both = coverage(parts_a, shape) & coverage(parts_b, shape)
            pixels += int(np.count_nonzero(both))
            sums = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int64)
            np.cumsum(np.cumsum(both, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
            touched_a |= _holds(parts_a, sums)
            touched_b |= _holds(parts_b, sums)
    return SharedPixels(pixels, int(touched_a.sum()), int(touched_b.sum()), note)


def _same_crs(a: str, b: str) -> bool:
    return a == b or (bool(a) and bool(b) and bool(CRS.from_wkt(a) == CRS.from_wkt(b)))


def _grid(scene: DatasetScene) -> Grid:
    return Grid(scene.width, scene.height, Affine(*scene.transform), None)


def _footprints(dataset: PatchDataset, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return top, left, bottom, right of the patches inside their raster, int64 ``(N, 4)``; the ends are outside."""
    size, scene = dataset.description.sources[0].patch_size, dataset.description.scene
    top, left = dataset.rows[mask] - size // 2, dataset.cols[mask] - size // 2
    boxes = np.stack([top, left, top + size, left + size], axis=1)
    return np.clip(boxes, 0, [scene.height, scene.width, scene.height, scene.width])


def _on_other_grid(boxes: npt.NDArray[np.int64], own: Grid, other: Grid) -> npt.NDArray[np.int64]:
    """Return the boxes in pixels of another grid, snapped outward; a thousandth of a pixel is rounding."""
    corners: list[Tuple[Array, Array]] = [
        other.index_of(*own.corners_of(boxes[:, row], boxes[:, col])) for row in (0, 2) for col in (1, 3)
    ]
    cols, rows = np.stack([corner[0] for corner in corners]), np.stack([corner[1] for corner in corners])
    lows = [np.floor(rows.min(axis=0) + 1e-3), np.floor(cols.min(axis=0) + 1e-3)]
    highs = [np.ceil(rows.max(axis=0) - 1e-3), np.ceil(cols.max(axis=0) - 1e-3)]
    return np.stack(lows + highs, axis=1).astype(np.int64)


def _cut_to(boxes: npt.NDArray[np.int64], window: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the boxes cut to a window and counted from its corner; those outside become empty."""
    return np.clip(boxes, np.tile(window[:2], 2), np.tile(window[2:], 2)) - np.tile(window[:2], 2)


def _holds(boxes: npt.NDArray[np.int64], sums: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    top, left, bottom, right = boxes.T
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside > 0)
