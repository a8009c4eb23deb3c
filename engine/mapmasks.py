"""Which pixels of a scene are mapped at all: those inside a mask, and those whose surroundings the raster holds."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Optional, Protocol, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Classify, VectorSource
from .rasters import Grid, RasterReader, open_mask_on
from .runtimes import Geometry

Mask = npt.NDArray[np.bool_]
Window = Tuple[int, int, int, int]


class MapMask(Protocol):
    """What tells the pixels to be mapped; may be called from several threads."""

    def inside(self, window: Window) -> Optional[Mask]:
        """Return the pixels ``(H, W)`` of a window (row, col, height, width) that are inside; None where all are."""


@contextlib.contextmanager
def open_mask(job: Classify, grid: Grid, name: str, context: Context) -> Iterator[Optional[MapMask]]:
    """Open a job's mask; None where it has none.

    Args:
        job: the job.
        grid: of the scene.
        name: of the scene, for messages.
        context: for warnings.

    Raises:
        BadInput: the mask cannot be read, or lies on another grid than the scene.
    """
    if job.mask_layer is not None:
        yield VectorMask(job.mask_layer, grid, name, context)
    elif job.mask is not None:
        with open_mask_on(job.mask, grid, ", or a layer of polygons") as reader:
            yield RasterMask(reader)
    else:
        yield None


class RasterMask:
    """The pixels where a raster of the scene's grid is above 0; see `MapMask`."""

    def __init__(self, reader: RasterReader) -> None:
        self._reader = reader

    def inside(self, window: Window) -> Optional[Mask]:
        """See `MapMask.inside`."""
        raw, valid = self._reader.read_known(*window)
        found: Mask = raw[0] > 0
        if valid is not None:
            found &= valid[0]
        return None if found.all() else found


class VectorMask:
    """The pixels whose centres lie in the polygons of a layer; see `MapMask`."""

    def __init__(self, source: VectorSource, grid: Grid, name: str, context: Context) -> None:
        """Read the layer.

        Raises:
            BadInput: the layer cannot be read, has no polygons, or cannot be brought to the scene's CRS.
        """
        import shapely

        from .vectors import on_grid, read_layer

        self._shapely, self._grid = shapely, grid
        layer = read_layer(source, context)
        geometries = np.asarray(on_grid(layer, grid, name, context).frame.geometry.values, dtype=object)
        polygons = geometries[shapely.get_dimensions(geometries) == 2]
        if not len(polygons):
            raise BadInput(f"The mask '{layer.name}' has no polygons.", "Choose a layer of polygons, or a raster.")
        self._tree = shapely.STRtree(polygons)
        if not len(self._tree.query(self._outline((0, 0, grid.height, grid.width)), predicate="intersects")):
            raise BadInput(
                f"The polygons of the mask '{layer.name}' lie beside '{name}'.",
                "Choose a mask of the same place, and check the CRS of both.",
            )
        shapely.prepare(polygons)
        self._polygons = polygons

    def inside(self, window: Window) -> Optional[Mask]:
        """See `MapMask.inside`."""
        from rasterio.features import rasterize

        height, width = window[2:]
        outline = self._outline(window)
        touched = self._polygons[self._tree.query(outline, predicate="intersects")]
        if not len(touched):
            return np.zeros((height, width), bool)
        if self._shapely.contains_properly(touched, outline).any():
            return None
        transform = self._grid.crop(*window).transform
        burnt: npt.NDArray[Any] = rasterize(touched, out_shape=(height, width), transform=transform, dtype="uint8")
        return burnt > 0

    def _outline(self, window: Window) -> Any:
        """Return a window as a polygon."""
        row, col, height, width = window
        x, y = self._grid.corners_of(
            np.array([row, row, row + height, row + height]), np.array([col, col + width, col + width, col])
        )
        return self._shapely.polygons(np.stack([x, y], axis=1))


def within_border(window: Window, margins: Geometry, height: int, width: int) -> Optional[Mask]:
    """Return the pixels of a window whose surroundings lie in a raster of this height and width; None where all do."""
    row, col, rows, cols = window
    inside = np.ones((rows, cols), bool)
    inside[: max(margins.before - row, 0)] = False
    inside[:, : max(margins.before - col, 0)] = False
    inside[max(height - margins.after - row, 0) :] = False
    inside[:, max(width - margins.after - col, 0) :] = False
    return None if inside.all() else inside
