"""Selecting samples beside the Orfeo ToolBox: wall time and peak memory. Run by hand: ``make bench``.

- A label raster of 10980 x 10980 (the Tokyo truth), 500 samples of each class, by a warm worker: under 1.5 s, 400 MB.
  LabelImageSampleSelection is no application of otb-bin; its published figures are 1.5 s and 546 MB, started cold.
- The polygons of a crop of it, counted and sampled: ours by a warm worker, the reference by its command line.

Skips what is not there: the data beside the checkout, otb-bin. Exits 1 when the limits of the first are missed.
Arguments: the interpreter of the engine's environment (default: this one).
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import geopandas
import pyogrio
import rasterio
import rasterio.features
import rasterio.windows
from deepscape.tasks import client
from deepscape.tasks.jobs import PolygonStatistics, RasterSource, SelectSamples, SelectVectorSamples, VectorSource
from shapely.geometry import shape

TRUTH = Path(__file__).resolve().parents[4] / "shared" / "data" / "tokyo_truth" / "terrain_truth_epsg32654_A.tif"
RUNS = 5
SIDE = 3000


def peak_mib(pid):
    """Return the peak resident memory of a process so far, None where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def ours(jobs, interpreter, folder):
    """Return median seconds of all jobs together on a warm worker of their own, and its peak memory in MiB."""
    pool = client.pool()
    seconds = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        for job in jobs:
            client.run_job(job, interpreter=interpreter, scratch=folder)
        seconds.append(time.perf_counter() - begun)
    peak = peak_mib(pool.pids()[0])
    pool.shutdown()
    return statistics.median(seconds[1:]), peak


def theirs(commands):
    """Return seconds of command lines one after the other, and the largest peak memory of children so far in MiB."""
    begun = time.perf_counter()
    for command in commands:
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def said(peak):
    return "memory unknown" if peak is None else f"{peak:.0f} MiB"


def label_raster(interpreter, folder):
    """Measure the label raster; tells whether the limits hold."""
    good = True
    for sampler in ("periodic", "spread"):
        job = SelectSamples(
            RasterSource(str(TRUTH)), str(folder / "p.gpkg"), strategy="constant", count=500, sampler=sampler
        )
        seconds, peak = ours([job], interpreter, str(folder))
        print(f"label raster, constant 500, {sampler}: {seconds:.2f} s, {said(peak)} (limits 1.5 s, 400 MiB)")
        good &= seconds < 1.5 and (peak is None or peak < 400)
    print("  the reference as published, started cold: 1.5 s, 546 MB")
    return good


def polygons(folder):
    """Make a crop of the truth and a layer of its polygons."""
    with rasterio.open(TRUTH) as dataset:
        window = rasterio.windows.Window(6000, 2000, SIDE, SIDE)
        labels, transform = dataset.read(1, window=window), dataset.window_transform(window)
        profile = dict(dataset.profile, width=SIDE, height=SIDE, transform=transform, blockxsize=SIDE)
    with rasterio.open(folder / "grid.tif", "w", **profile) as dataset:
        dataset.write(labels, 1)
    found = rasterio.features.shapes(labels, labels != 255, transform=transform)
    parts, codes = zip(*((shape(outline), int(value)) for outline, value in found))
    frame = geopandas.GeoDataFrame({"code": codes}, geometry=list(parts), crs=profile["crs"])
    pyogrio.write_dataframe(frame, folder / "v.gpkg")
    return len(frame)


def polygon_chain(interpreter, folder):
    number = polygons(folder)
    grid, layer = RasterSource(str(folder / "grid.tif")), VectorSource(str(folder / "v.gpkg"))
    jobs = [
        PolygonStatistics(layer, "code", grid, str(folder / "s.xml")),
        SelectVectorSamples(
            layer, "code", grid, str(folder / "p.gpkg"), strategy="constant", count=500, sampler="periodic"
        ),
    ]
    seconds, peak = ours(jobs, interpreter, str(folder))
    print(f"{number} polygons of {SIDE} x {SIDE} pixels, counted and sampled: {seconds:.2f} s, {said(peak)}")
    if shutil.which("otbcli_SampleSelection") is None:
        print("  the reference (otb-bin) is not installed")
        return
    common = ["-in", folder / "grid.tif", "-vec", folder / "v.gpkg", "-field", "code"]
    strategy = ["-strategy", "constant", "-strategy.constant.nb", "500"]
    reference, memory = theirs(
        [
            ["otbcli_PolygonClassStatistics", *common, "-out", folder / "o.xml"],
            ["otbcli_SampleSelection", *common, "-instats", folder / "o.xml", *strategy, "-out", folder / "o.gpkg"],
        ]
    )
    print(f"  the reference: {reference:.2f} s, {memory:.0f} MiB: ours takes {seconds / reference:.2f} of its time")


def main():
    interpreter = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    if not TRUTH.exists():
        print("the Tokyo truth is not beside the checkout: nothing to measure")
        return 0
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        good = label_raster(interpreter, Path(name))
        polygon_chain(interpreter, Path(name))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
