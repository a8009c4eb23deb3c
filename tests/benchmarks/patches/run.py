"""Cutting 30,000 patches: wall time and peak memory on a warm worker. Run by hand: ``make bench``.

Patches of 16 x 16 pixels around random points of a made scene of 2048 x 2048 pixels, four bands of uint16: under 2 s.
PatchesExtraction is no application of otb-bin; its published figures are 11.4 s and 368 MB. A loop that reads each
patch by rasterio and keeps it in memory, without a data set on the disk, stands beside as what one writes oneself.

Exits 1 when the limit is missed. Arguments: the interpreter of the engine's environment (default: this one).
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
import rasterio.windows
import shapely
from deepscape.tasks import client
from deepscape.tasks.jobs import ExtractPatches, RasterSource, VectorSource
from rasterio.transform import from_origin

SIDE, BANDS, SIZE, NUMBER = 2048, 4, 16, 30_000
RUNS = 3
LIMIT_S, REFERENCE_S, REFERENCE_MB = 2.0, 11.4, 368
# A GeoTIFF in strips, as GDAL writes it by default, and one in compressed blocks, as scenes are delivered.
LAYOUTS = {
    "strips": {},
    "deflated blocks": {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"},
}


def scene(path, layout):
    """Write the scene; its values compress about as well as those of a real one."""
    generator = np.random.default_rng(0)
    values = generator.integers(200, 3000, (BANDS, SIDE // 8, SIDE // 8)).repeat(8, axis=1).repeat(8, axis=2)
    values = (values + generator.integers(0, 64, (BANDS, SIDE, SIDE))).astype("uint16")
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=BANDS, dtype="uint16", crs="EPSG:32654",
        transform=from_origin(300000, 4000020, 10, 10), **layout,
    ) as dataset:  # fmt: skip
        dataset.write(values)


def points(path):
    """Write points around which a whole patch lies; returns their rows and columns."""
    rows, cols = np.random.default_rng(1).integers(SIZE, SIDE - SIZE, (2, NUMBER))
    places = shapely.points(300005 + 10 * cols, 4000015 - 10 * rows)
    frame = geopandas.GeoDataFrame({"class_id": rows % 6}, geometry=places, crs="EPSG:32654")
    pyogrio.write_dataframe(frame, path)
    return rows, cols


def peak_mib(pid):
    """Return the peak resident memory of a process so far, None where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def ours(interpreter, folder):
    """Return median seconds on a warm worker, and its peak memory in MiB."""
    job = ExtractPatches(
        RasterSource(str(folder / "scene.tif")), VectorSource(str(folder / "points.gpkg")), "class_id",
        str(folder / "patches"), patch_size=SIZE,
    )  # fmt: skip
    pool = client.pool()
    seconds = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        result = client.run_job(job, interpreter=interpreter, scratch=str(folder))
        seconds.append(time.perf_counter() - begun)
        if (result.accepted, result.rejected) != (NUMBER, 0):
            raise SystemExit(f"{result.accepted} patches accepted, {result.rejected} rejected")
    peak = peak_mib(pool.pids()[0])
    pool.shutdown()
    return statistics.median(seconds[1:]), peak


def loop(folder, rows, cols):
    """Return seconds of reading every patch for itself."""
    begun = time.perf_counter()
    patches = np.empty((NUMBER, BANDS, SIZE, SIZE), dtype="uint16")
    with rasterio.open(folder / "scene.tif") as dataset:
        for place, (row, col) in enumerate(zip(rows - SIZE // 2, cols - SIZE // 2)):
            patches[place] = dataset.read(window=rasterio.windows.Window(col, row, SIZE, SIZE))
    return time.perf_counter() - begun


def main():
    interpreter = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    good = True
    for layout, options in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scene(folder / "scene.tif", options)
            rows, cols = points(folder / "points.gpkg")
            seconds, peak = ours(interpreter, folder)
            alone = loop(folder, rows, cols)
        memory = "memory unknown" if peak is None else f"{peak:.0f} MiB"
        print(f"{NUMBER} patches of {SIZE} x {SIZE} x {BANDS}, {layout}: {seconds:.2f} s (limit {LIMIT_S:g}), {memory}")
        ratio = REFERENCE_S / seconds
        print(f"  the reference as published ({REFERENCE_S} s, {REFERENCE_MB} MB) takes {ratio:.1f} times as long")
        print(f"  a loop over rasterio's reads, nothing written: {alone:.2f} s")
        good &= seconds < LIMIT_S
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
