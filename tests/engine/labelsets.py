"""Label rasters, layers of features and an image's grid for the tests of labels on it."""

import geopandas
import numpy as np
import rasterio
from affine import Affine
from deepscape.engine.labelsources import open_labels
from deepscape.engine.rasters import Grid
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import RasterSource, VectorSource
from rasterio.crs import CRS

UTM = CRS.from_epsg(32654)
GRID = Grid(60, 50, Affine(10, 0, 380000, 0, -10, 3950000), UTM)


def raster(path, labels, transform, crs=UTM, nodata=None, **options):
    labels = np.asarray(labels)
    with rasterio.open(
        path, "w", driver="GTiff", width=labels.shape[1], height=labels.shape[0], count=1, dtype=labels.dtype,
        crs=crs, transform=transform, nodata=nodata, **options,
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    return RasterSource(str(path))


def layer(path, geometries, classes, crs=UTM):
    frame = geopandas.GeoDataFrame({"class": classes}, geometry=list(geometries), crs=crs)
    frame.to_file(path, driver="GPKG")
    return VectorSource(str(path))


def read_all(source, grid=GRID, field="class", context=None, **options):
    vector = isinstance(source, VectorSource)
    context = context or Context()
    with open_labels(
        None if vector else source, source if vector else None, field, grid, "image", context, **options
    ) as o:
        labels, valid = o.read(0, 0, grid.height, grid.width)
        o.finish(context)
        return labels, valid, o


def random_labels(height, width, values=(1, 2, 7), shares=None):
    return np.random.default_rng(0).choice(np.array(values, np.int32), (height, width), p=shares)
