"""Small patch datasets for the tests of training: two or three classes that differ in their bands."""

import geopandas
import numpy as np
import rasterio
from deepscape.engine import patches
from deepscape.tasks import jobs
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from rasterio.transform import from_origin

SIDE = 96
TRANSFORM = from_origin(500_000, 4_000_000, 10, 10)
LEGEND = (ClassEntry(3, "water", "#4393c3"), ClassEntry(7, "forest", "#1b7837"), ClassEntry(300, "town", "#d7301f"))


def scene(path, seed=0, bands=3, values=None, **profile):
    """Write a scene whose columns' thirds are the classes 3, 7 and 300; band b of class k is about 10 k + b."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(np.arange(3), SIDE // 3)
    data = 10 * kinds[None, None, :] + np.arange(bands)[:, None, None] + rng.normal(0, 1, (bands, SIDE, SIDE))
    data = data if values is None else values(data)
    settings = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": bands, "dtype": "float32"}
    settings.update(crs="EPSG:32631", transform=TRANSFORM, **profile)
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(data.astype(settings["dtype"]))
        for band in range(1, bands + 1):
            raster.set_band_description(band, f"B{band}")
    return str(path)


def grid_points(path, rows, step=3, classes=(3, 7, 300), splits=None, groups=None):
    """Write points on a grid of the rows given; their class is that of the column."""
    row, col = np.meshgrid(np.arange(*rows, step), np.arange(4, SIDE - 4, step), indexing="ij")
    row, col = row.ravel(), col.ravel()
    value = np.array([3, 7, 300])[col // (SIDE // 3)]
    keep = np.isin(value, classes)
    row, col, value = row[keep], col[keep], value[keep]
    table = {"class_id": value}
    if splits is not None:
        table["split"] = [splits(r, c) for r, c in zip(row, col)]
    if groups is not None:
        table["originfid"] = [groups(r, c) for r, c in zip(row, col)]
    x, y = TRANSFORM.c + TRANSFORM.a * (col + 0.5), TRANSFORM.f + TRANSFORM.e * (row + 0.5)
    geopandas.GeoDataFrame(table, geometry=geopandas.points_from_xy(x, y), crs="EPSG:32631").to_file(path)
    return str(path)


def extract(folder, image, points, size=5, **options):
    """Extract patches; returns the dataset's folder."""
    job = jobs.ExtractPatches(
        jobs.RasterSource(image), jobs.VectorSource(points), "class_id", str(folder), patch_size=size,
        legend=jobs.Legend(layer_classes=LEGEND), **options,
    )  # fmt: skip
    return patches.extract_patches(job, Context()).output


def dataset(folder, name="patches", rows=(4, 44), size=5, seed=0, bands=3, step=3, **options):
    """Make scene, points and patches in one go; ``options`` go to `grid_points`."""
    image = scene(folder / f"{name}.tif", seed, bands)
    return extract(folder / name, image, grid_points(folder / f"{name}.gpkg", rows, step, **options), size)
