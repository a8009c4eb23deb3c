"""Writing rasters by window: tiled, compressed GeoTIFFs that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Tuple

import rasterio
from rasterio.errors import RasterioError

from .grids import Grid
from .outputfiles import part_name, writing_error

# Side of the tiles of the rasters that are written, and the values that a window of them may hold.
_TILE = 256
_WINDOW_VALUES = 4_000_000


def tile_windows(grid: Grid, bands: int) -> Iterator[Tuple[int, int, int, int]]:
    """Yield windows (row, col, height, width) that cover a grid in whole tiles of `create_raster`, row by row.

    They are cut in columns where rows are long, so that no window holds more than a few million values.
    """
    across = max(_TILE, _WINDOW_VALUES // (bands * _TILE) // _TILE * _TILE)
    for row in range(0, grid.height, _TILE):
        for col in range(0, grid.width, across):
            yield row, col, min(_TILE, grid.height - row), min(across, grid.width - col)


@contextlib.contextmanager
def create_raster(
    path: str,
    grid: Grid,
    *,
    count: int,
    dtype: str,
    nodata: Optional[float],
    descriptions: Sequence[str] = (),
    **options: Any,
) -> Iterator[Any]:
    """Create a tiled, compressed GeoTIFF; yields the rasterio dataset, open for writing.

    It is written under a temporary name and renamed when the block ends well; otherwise nothing is left.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    profile = dict(
        driver="GTiff", width=grid.width, height=grid.height, count=count, dtype=dtype, nodata=nodata,
        crs=grid.crs, transform=grid.transform, tiled=True, blockxsize=_TILE, blockysize=_TILE,
        compress="deflate", predictor=3 if dtype.startswith("float") else 1, BIGTIFF="IF_SAFER", interleave="band",
    )  # fmt: skip
    if count > 1:
        # GDAL takes three or four bytes for a picture, and the fourth for its alpha.
        profile["photometric"] = "minisblack"
    profile.update(options)
    part = part_name(path)
    try:
        with rasterio.open(part, "w", **profile) as dataset:
            for index, text in enumerate(descriptions, start=1):
                dataset.set_band_description(index, text)
            yield dataset
        os.replace(part, path)
        # Statistics and categories that an older file of this name left behind would describe other pixels.
        Path(path + ".aux.xml").unlink(missing_ok=True)
        if Path(part + ".aux.xml").exists():
            os.replace(part + ".aux.xml", path + ".aux.xml")
    except (RasterioError, OSError) as error:
        raise writing_error(path, error) from error
    finally:
        for leftover in (part, part + ".aux.xml"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(leftover)
