"""The rasters of a mapping job: the classes with their legend, probabilities and confidence, and the areas.

All of one job's rasters are written under temporary names and get their own together, when all are complete.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput, DeepscapeError
from .legends import aux_path, colour_table, qml_path, write_sidecars
from .rasters import Grid, create_raster, part_name, writing_error
from .runtimes import Runtime

Array = npt.NDArray[Any]


def output_type(values: Sequence[int]) -> Tuple[str, int]:
    """Return the smallest integer type that holds the class ids and a no-data value, and that value.

    No-data is the first of these that is no class: 255, 0 (uint8); 65535, 0 (uint16); 4294967295 (uint32); with
    negative ids -32768, 32767 (int16); -2147483648, 2147483647 (int32).

    Raises:
        BadInput: a class id fits none of them.
    """
    choices = (
        ("uint8", (255, 0)), ("uint16", (65535, 0)), ("uint32", (2**32 - 1, 0)),
        ("int16", (-(2**15), 2**15 - 1)), ("int32", (-(2**31), 2**31 - 1)),
    )  # fmt: skip
    for dtype, candidates in choices:
        limits = np.iinfo(dtype)
        if limits.min <= min(values) and max(values) <= limits.max:
            free = [value for value in candidates if value not in values]
            if free:
                return dtype, free[0]
    wrong = max(values, key=abs)
    raise BadInput(
        f"The class id {wrong} fits no raster type together with the others.",
        "Train with class ids from -2147483647 to 2147483646.",
    )


def raster_path(path: str) -> str:
    """Return the path with the missing suffix ``.tif``; an empty path stays empty."""
    return path if not path or Path(path).suffix.lower() in (".tif", ".tiff") else path + ".tif"


class MapWriter:
    """The rasters of one job, written under temporary names; all get their names together, or none does."""

    def __init__(self, paths: Sequence[str], grid: Grid, classes: Sequence[ClassEntry], tags: Dict[str, str]) -> None:
        """Prepare.

        Args:
            paths: of the class raster, the probabilities and the confidence; empty = not wanted.
            grid: of all of them.
            classes: in the order of the scores.
            tags: metadata items of the files.

        Raises:
            BadInput: no raster type holds the class ids.
        """
        self.classes = tuple(classes)
        self._dtype, self.nodata = output_type([entry.value for entry in classes])
        self._finals = list(paths)
        self._parts = [part_name(path) if path else "" for path in paths]
        self._grid, self._tags = grid, tags
        self._values = np.array([entry.value for entry in self.classes], np.int64).astype(self._dtype)
        self._stack = contextlib.ExitStack()
        self._rasters: List[Any] = []

    def __enter__(self) -> MapWriter:
        names = [entry.name for entry in self.classes]
        kinds = [
            (1, self._dtype, self.nodata, ["class"]),
            (len(names), "float32", math.nan, names),
            (1, "float32", math.nan, ["confidence"]),
        ]
        try:
            for part, (count, dtype, nodata, descriptions) in zip(self._parts, kinds):
                if not part:
                    self._rasters.append(None)
                    continue
                raster = self._stack.enter_context(
                    create_raster(part, self._grid, count=count, dtype=dtype, nodata=nodata, descriptions=descriptions)
                )
                raster.update_tags(**self._tags)
                self._rasters.append(raster)
            colours = colour_table(self.classes, self._dtype)
            if colours is not None:
                self._rasters[0].write_colormap(1, colours)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, place: Tuple[int, int], scores: Optional[Array], valid: Array, runtime: Runtime) -> Array:
        """Write a block whose upper left pixel is ``place`` (row, col); return its pixels per row and class ``(h, K)``.

        ``scores`` are ``(K, h, w)``, or None where no pixel is valid.
        """
        height, width = valid.shape
        window = Window(place[1], place[0], width, height)
        counts = np.zeros((height, len(self.classes)), np.int64)
        chosen = np.full((height, width), self.nodata, self._dtype)
        probabilities = None
        if scores is not None:
            # argmax gives the first of equal scores: ties go to the lower class.
            best = scores.argmax(axis=0)
            chosen[valid] = self._values[best[valid]]
            pairs = (np.arange(height)[:, None] * len(self.classes) + best)[valid]
            counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
            if self._rasters[1] is not None or self._rasters[2] is not None:
                probabilities = runtime.probabilities(scores)
                probabilities[:, ~valid] = np.nan
        self._rasters[0].write(chosen, 1, window=window)
        if probabilities is None:
            probabilities = np.full((len(self.classes), height, width), np.nan, np.float32)
        if self._rasters[1] is not None:
            self._rasters[1].write(probabilities.astype(np.float32, copy=False), window=window)
        if self._rasters[2] is not None:
            self._rasters[2].write(probabilities.max(axis=0).astype(np.float32, copy=False), 1, window=window)
        return counts

    def write_classes(self, place: Tuple[int, int], values: Array) -> None:
        """Write a block of class values ``(h, w)``, no-data included; ``place`` is its upper left pixel (row, col)."""
        window = Window(place[1], place[0], values.shape[1], values.shape[0])
        self._rasters[0].write(values.astype(self._dtype), 1, window=window)

    def finish(self, counts: Dict[int, int]) -> None:
        """Close the rasters, write the legend beside the map, and give all files their names."""
        self._stack.close()
        for part, final in zip(self._parts, self._finals):
            if not part:
                continue
            try:
                if final == self._finals[0]:
                    write_sidecars(part, self.classes, counts)
                # Overviews and masks of an older file of this name would be shown in place of the new pixels.
                for stale in (final + ".ovr", final + ".msk", aux_path(final)):
                    Path(stale).unlink(missing_ok=True)
                for name in (aux_path, qml_path, str):
                    if os.path.exists(name(part)):
                        os.replace(name(part), name(final))
            except OSError as error:
                raise writing_error(final, error) from error

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        except DeepscapeError as failure:
            error = failure
        finally:
            for part in filter(None, self._parts):
                for leftover in (part, aux_path(part), qml_path(part)):
                    Path(leftover).unlink(missing_ok=True)
        if isinstance(error, DeepscapeError):
            raise self._by_final_name(error) from error

    def _by_final_name(self, error: DeepscapeError) -> DeepscapeError:
        """Return the error with the names that the user gave in place of the temporary ones."""
        message = error.message
        for part, final in zip(self._parts, self._finals):
            if part:
                message = message.replace(Path(part).name, Path(final).name)
        return type(error)(message, error.remedy, error.details)


def class_areas(classes: Sequence[ClassEntry], counts: Array, grid: Grid, context: Context) -> Dict[str, Any]:
    """Return class value (as text) -> name, pixels and hectares, by counting pixels.

    Args:
        classes: the class table.
        counts: pixels per row and class ``(H, K)``.
        grid: of the map.
        context: told that such areas are biased.
    """
    hectares = row_hectares(grid)
    if hectares is not None:
        context.log(
            "Areas are pixel counting: biased by the map's errors. An unbiased estimate needs a probability sample."
        )
    return {
        str(entry.value): {
            "name": entry.name,
            "pixels": int(counts[:, index].sum()),
            "hectares": None if hectares is None else float(counts[:, index] @ hectares),
        }
        for index, entry in enumerate(classes)
    }


def row_hectares(grid: Grid) -> Optional[npt.NDArray[np.float64]]:
    """Return the area of a pixel of each row in hectares ``(H,)``, at the middle column; None without a usable CRS.

    On the ellipsoid where coordinates are degrees. In a projection the pixel's own area, corrected by the projection's
    areal scale where that is more than 1 % off (Web Mercator is 34 % off at 30 degrees of latitude).
    """
    if grid.crs is None or not (grid.crs.is_geographic or grid.crs.is_projected):
        return None
    import pyproj

    rows = np.arange(grid.height)
    x, y = grid.centres_of(rows, np.full(grid.height, (grid.width - 1) / 2))
    pixel = abs(grid.transform.determinant)
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if grid.crs.is_geographic:
        ellipsoid = crs.get_geod()
        if ellipsoid is None:
            return None
        unit = grid.crs.units_factor[1]
        latitude = y * unit
        # Product of the radii of curvature (J. P. Snyder, Map Projections: A Working Manual, 1987, 4-18 and 4-20).
        root = 1 - ellipsoid.es * np.sin(latitude) ** 2
        return pixel * unit**2 * ellipsoid.a**2 * (1 - ellipsoid.es) * np.cos(latitude) / root**2 / 1e4
    area = np.full(grid.height, pixel * grid.crs.linear_units_factor[1] ** 2 / 1e4)
    longitude, latitude = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    scale = np.asarray(pyproj.Proj(crs).get_factors(longitude, latitude).areal_scale)
    usable = np.isfinite(scale) & (np.abs(scale - 1) > 0.01) & (scale > 0)
    return np.where(usable, area / np.where(usable, scale, 1.0), area)
