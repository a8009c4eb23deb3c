"""Large inputs stay within 1 GB: a label raster of 60,000 x 60,000, and a million small polygons. Run by hand.

The polygons are given in the raster's CRS and in another one. Makes all in a temporary folder (some 600 MB), runs each
job in a worker of its own and prints its seconds and its peak memory; exits 1 when one needs more than 1 GB. Arguments:
the interpreter of the engine's environment (default: this one).
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
import shapely
from deepscape.tasks import client
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, SelectSamples, SelectVectorSamples, VectorSource
from rasterio.transform import from_origin
from rasterio.windows import Window

SIDE = 60_000
ISLAND = 1500
ISLANDS = 60
POLYGONS_PER_SIDE = 1000
LIMIT_MIB = 1e9 / 2**20


def label_raster(path):
    """Write a sparse raster of no-data with islands of classes."""
    generator = np.random.default_rng(1)
    profile = dict(
        driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8", nodata=255, crs="EPSG:32654", tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", sparse_ok=True, transform=from_origin(0, 9e6, 10, 10),
    )  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        for _ in range(ISLANDS):
            row, col = generator.integers(0, SIDE - ISLAND, 2)
            coarse = generator.integers(0, 6, (ISLAND // 50, ISLAND // 50)).astype("uint8")
            labels = np.repeat(np.repeat(coarse, 50, axis=0), 50, axis=1)
            dataset.write(labels, 1, window=Window(col, row, ISLAND, ISLAND))


def polygons(path, moved_path, grid_path):
    """Write a million polygons of five corners on a lattice in two CRS, and an empty raster that sets their grid."""
    generator = np.random.default_rng(0)
    x, y = (part.ravel() * 80.0 for part in np.meshgrid(*[np.arange(POLYGONS_PER_SIDE)] * 2))
    x, y, w = x + 300_007, y + 3_900_007, generator.uniform(20, 60, len(x))
    corners = [(x, y), (x + w, y), (x + w, y + w), (x + w / 2, y + w * 1.2), (x, y + w)]
    made = shapely.polygons(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1))
    fields = {"code": generator.integers(1, 6, len(x)), "owner": np.array(["a", "b", "c"])[np.arange(len(x)) % 3]}
    frame = geopandas.GeoDataFrame(fields, geometry=made, crs="EPSG:32654")
    pyogrio.write_dataframe(frame, path)
    pyogrio.write_dataframe(frame.to_crs("EPSG:4326"), moved_path)
    with rasterio.open(
        grid_path, "w", driver="GTiff", width=8100, height=8100, count=1, dtype="uint8", crs="EPSG:32654", tiled=True,
        sparse_ok=True, transform=from_origin(300_000, 3_980_500, 10, 10),
    ):  # fmt: skip
        return len(x)


def measured(name, job, interpreter, folder):
    """Run a job in a worker of its own; print and return its peak memory in MiB."""
    pool = client.pool()
    begun = time.perf_counter()
    client.run_job(job, interpreter=interpreter, scratch=folder)
    seconds = time.perf_counter() - begun
    status = Path(f"/proc/{pool.pids()[0]}/status").read_text().splitlines()
    pool.shutdown()
    peak = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    print(f"{name}: {seconds:.1f} s, {peak:.0f} MiB (limit {LIMIT_MIB:.0f})", flush=True)
    return peak


def main():
    interpreter = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        label_raster(folder / "labels.tif")
        count = polygons(folder / "v.gpkg", folder / "moved.gpkg", folder / "grid.tif")
        labels, points = RasterSource(str(folder / "labels.tif")), str(folder / "p.gpkg")
        layer, grid = VectorSource(str(folder / "v.gpkg")), RasterSource(str(folder / "grid.tif"))
        moved = VectorSource(str(folder / "moved.gpkg"))
        peaks = [
            measured(f"{SIDE} x {SIDE} labels, {what}", job, interpreter, name)
            for what, job in (
                ("1000 per class", SelectSamples(labels, points)),
                ("1000 per class 20 pixels apart", SelectSamples(labels, points, min_distance=20)),
                ("a million in all", SelectSamples(labels, points, strategy="total", count=1_000_000)),
            )
        ]
        peaks += [
            measured(f"{count} polygons, {what}", job, interpreter, name)
            for what, job in (
                ("counted", PolygonStatistics(layer, "code", grid, str(folder / "s.xml"))),
                ("1000 per class", SelectVectorSamples(layer, "code", grid, points)),
                ("1000 per class 20 pixels apart", SelectVectorSamples(layer, "code", grid, points, min_distance=20)),
                ("in another CRS, counted", PolygonStatistics(moved, "code", grid, str(folder / "s.xml"))),
                (
                    "in another CRS, 1000 per class 20 pixels apart",
                    SelectVectorSamples(moved, "code", grid, points, min_distance=20),
                ),
                ("half of the pixels", SelectVectorSamples(layer, "code", grid, points, strategy="percent")),
            )
        ]
    return 0 if max(peaks) < LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
