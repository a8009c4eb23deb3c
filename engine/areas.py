"""Which part of a raster trains, which validates and which tests: by polygons, or by blocks."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Protocol, Set, Tuple

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import VectorSource
from .featurelabels import FeatureLabels
from .grids import Grid
from .vectors import on_grid, read_layer

Codes = npt.NDArray[np.int8]
Mask = npt.NDArray[np.bool_]
Window = Tuple[int, int, int, int]

NOWHERE, TRAINING, VALIDATION, TEST = 0, 1, 2, 3
ROLES = ("", "training", "validation", "test")
_WORDS = {
    "train": TRAINING, "training": TRAINING, "validation": VALIDATION, "val": VALIDATION, "valid": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
_LISTED = 8


class Areas(Protocol):
    """Which role the pixels of a raster have."""

    def read(self, window: Window) -> Codes:
        """Return `NOWHERE`, `TRAINING`, `VALIDATION` or `TEST` of a window's pixels ``(H, W)``."""
        ...


class PolygonAreas:
    """Areas that polygons give, by a field that holds train, validation or test."""

    def __init__(self, source: VectorSource, field: str, grid: Grid, image: str, context: Context) -> None:
        """Read the polygons.

        Raises:
            BadInput: the field is missing or holds something else, no polygon trains, or none lies on the image.
        """
        # What is said of classes there would be misleading here.
        silent = Context()
        layer = read_layer(source, silent)
        if field not in layer.fields:
            raise BadInput(
                f"The layer '{layer.name}' of AREAS has no field '{field}'.",
                "Give AREA_FIELD the field that holds train, validation or test; the layer's fields are: "
                f"{', '.join(layer.fields) or 'none'}.",
            )
        self._labels = FeatureLabels(layer, field, grid, image, silent)
        for text in silent.warnings:
            context.warn(text)
        classes = self._labels.classes
        wrong = [entry.name for entry in classes if entry.name.strip().casefold() not in _WORDS]
        if wrong:
            raise BadInput(
                f"'{field}' of '{self._labels.name}' holds '{', '.join(wrong[:_LISTED])}'.",
                "The areas' field may hold train, validation and test.",
            )
        self._codes = np.array([_WORDS[entry.name.strip().casefold()] for entry in classes], np.int8)
        self._ids = np.array([entry.value for entry in classes])
        if TRAINING not in self._codes:
            raise BadInput(f"No polygon of '{self._labels.name}' is for training.", f"Set '{field}' of one to train.")

    @property
    def name(self) -> str:
        """Return what messages call the layer."""
        return self._labels.name

    @property
    def roles(self) -> Set[str]:
        """Return the roles that there are polygons of."""
        return {ROLES[code] for code in self._codes}

    def read(self, window: Window) -> Codes:
        """Return the roles of a window's pixels; what two roles claim has none."""
        ids, known = self._labels.read(*window)
        found = self._codes[np.searchsorted(self._ids, np.where(known, ids, self._ids[0]))]
        return np.where(known, found, NOWHERE).astype(np.int8)


class BlockAreas:
    """Square blocks of a raster, some of which validate."""

    def __init__(self, side: int, validating: Mask) -> None:
        """Keep which blocks ``(R, C)`` of ``side`` pixels validate."""
        self._side, self._codes = side, np.where(validating, VALIDATION, TRAINING).astype(np.int8)

    def read(self, window: Window) -> Codes:
        """Return the roles of a window's pixels."""
        row, col, height, width = window
        rows = np.clip((row + np.arange(height)) // self._side, 0, len(self._codes) - 1)
        cols = np.clip((col + np.arange(width)) // self._side, 0, self._codes.shape[1] - 1)
        return self._codes[np.ix_(rows, cols)]


class WholeArea:
    """All of a raster trains."""

    def read(self, window: Window) -> Codes:
        """Return the roles of a window's pixels."""
        return np.full(window[2:], TRAINING, np.int8)


class Crossing:
    """Label features that lie across the border of an area: what of them is scored would be a piece.

    Attributes:
        count: features.
    """

    def __init__(self, features: VectorSource, areas: VectorSource, grid: Grid, image: str) -> None:
        """Find them; both layers are read without a word, since they were read before."""
        silent = Context()
        shapes = on_grid(read_layer(features, silent), grid, image, silent).frame.geometry.to_numpy()
        borders = on_grid(read_layer(areas, silent), grid, image, silent).frame.geometry.boundary.to_numpy()
        which, found = shapely.STRtree(shapes).query(borders, predicate="intersects")
        # What lies along a border is whole: only where a border runs through a feature it is cut.
        cut = shapely.relate_pattern(shapes[found], borders[which], "T********")
        self._shapes = shapes[np.unique(found[cut])]
        self._tree = shapely.STRtree(self._shapes)
        self._grid = grid
        self.count = len(self._shapes)

    def read(self, window: Window) -> Optional[Mask]:
        """Return where they cover a window's pixels ``(H, W)``; None where they do not."""
        row, col, height, width = window
        around = self._grid.crop(row, col, height, width)
        x, y = around.corners_of(np.array([0, 0, height, height]), np.array([0, width, 0, width]))
        box = shapely.box(min(x), min(y), max(x), max(y))
        near = self._tree.query(box)
        if not len(near):
            return None
        shapes: List[Tuple[Any, int]] = [(shape, 1) for shape in self._shapes[near]]
        burnt = rasterio.features.rasterize(
            shapes, out_shape=(height, width), transform=around.transform, all_touched=True, dtype="uint8"
        )
        return np.asarray(burnt > 0)


def counts_by_role(codes: Codes, targets: npt.NDArray[np.int64], classes: int) -> Dict[int, npt.NDArray[np.int64]]:
    """Return the labelled pixels of each class ``(K,)``, by role."""
    pairs = codes.astype(np.int64) * classes + targets
    counts = np.bincount(pairs[targets >= 0], minlength=len(ROLES) * classes).reshape(len(ROLES), classes)
    return {role: counts[role] for role in (TRAINING, VALIDATION, TEST)}
