"""Makes demo/data-buildings from the sample of the building data set; run once, in the engine's environment.

    python demo/make_buildings_data.py FOLDER

FOLDER holds ortho_train.tif, buildings.gpkg and areas.gpkg. The orthophoto is written at half resolution, the
footprints that lie on it are kept, and the areas become: the north trains; of the south, 32 m away on the ground, the
west half validates and the east half, 32 m farther, tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from shapely.geometry import box

TARGET = Path(__file__).resolve().parent / "data-buildings"
GUARD_M = 32.0


def main(folder: Path) -> None:
    """Write the three files."""
    TARGET.mkdir(exist_ok=True)
    for name in ("buildings.gpkg", "areas.gpkg"):
        (TARGET / name).unlink(missing_ok=True)  # else their format would stay
    with rasterio.open(folder / "ortho_train.tif") as source:
        pixels, transform = half_resolution(source)
        areas = three_areas(source, folder / "areas.gpkg")
        crs, bounds = source.crs, source.bounds
    profile = {
        "driver": "GTiff", "height": pixels.shape[1], "width": pixels.shape[2], "count": 3, "dtype": "uint8",
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "jpeg", "photometric": "ycbcr",
        "interleave": "pixel", "jpeg_quality": 90,
    }  # fmt: skip
    with rasterio.open(TARGET / "ortho.tif", "w", crs=crs, transform=transform, **profile) as raster:
        raster.write(pixels)
    # The tiles' rounding makes photographs of buildings end some centimetres beside the frame: they are kept whole.
    buildings = geopandas.read_file(folder / "buildings.gpkg")
    buildings = buildings[buildings.intersects(box(*bounds))]
    # The GDAL of QGIS 3.22 warns of version 1.4.
    buildings.to_file(TARGET / "buildings.gpkg", layer="buildings", VERSION="1.3")
    areas.to_file(TARGET / "areas.gpkg", layer="areas", VERSION="1.3")


def half_resolution(source: rasterio.DatasetReader) -> Tuple[npt.NDArray[np.uint8], Affine]:
    """Return the means of 2 x 2 pixels of the orthophoto ``(3, H, W)``, and where they lie."""
    height, width = source.height // 2, source.width // 2
    pixels = source.read(out_shape=(3, height, width), resampling=Resampling.average)
    return pixels, source.transform * Affine.scale(2)


def three_areas(source: rasterio.DatasetReader, areas: Path) -> geopandas.GeoDataFrame:
    """Return what trains, validates and tests, in the field split.

    ``areas``: those of the data set; the top of its validation area is the line between north and south.
    """
    bounds, latitude = source.bounds, source.lnglat()[1]
    line = float(geopandas.read_file(areas).query("split == 'validation'").total_bounds[3])
    # Web Mercator stretches what it shows; a hundredth more, for the ground is no sphere.
    guard = 1.01 * GUARD_M / np.cos(np.radians(latitude))
    middle, south = (bounds.left + bounds.right) / 2, line - guard
    parts = {
        "train": box(bounds.left, line, bounds.right, bounds.top),
        "validation": box(bounds.left, bounds.bottom, middle - guard / 2, south),
        "test": box(middle + guard / 2, bounds.bottom, bounds.right, south),
    }
    return geopandas.GeoDataFrame({"split": list(parts)}, geometry=list(parts.values()), crs=source.crs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
