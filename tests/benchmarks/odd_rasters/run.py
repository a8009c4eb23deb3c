"""Maps large and odd rasters, and prints what it took: a sparse scene of 60,000 x 60,000, and one scene stored in ways.

Run it with the engine's Python: ``python run.py [--side 60000]``. Compare ratios of one run, not seconds of two.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

PART = """
import json, sys, time
from deepscape.engine.inference import classify
from deepscape.tasks.context import Context
from deepscape.tasks.jobs import Classify, RasterSource
scene, model, output = sys.argv[1:]
begun = time.perf_counter()
result = classify(Classify(RasterSource(scene), model, output, continue_anyway=True, resume=False), Context())
seconds = time.perf_counter() - begun
# Not ru_maxrss, which a process takes over from the one that starts it.
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"s": seconds, "pixels": result.pixels, "MB": int(peak) / 1024}))
"""
BANDS = 3


def models(folder):
    """Write a forest of one tree and a simple CNN of 16 x 16."""
    import torch
    from deepscape.engine.modelfiles import module_tensors, save_model
    from deepscape.engine.nodearrays import Forest
    from deepscape.models.build import build_network
    from deepscape.models.cards import Card, CardBand, CardSource
    from deepscape.tasks.classtable import ClassEntry

    bands = tuple(CardBand("", 120.0, 70.0, 120.0, 70.0) for _ in range(BANDS))
    table = (ClassEntry(1, "one", "#ff0000"), ClassEntry(2, "two", "#00ff00"))
    forest = Forest(
        np.array([0, 3]), np.array([0, -1, -1], np.int32), np.array([120.0, 0, 0]),
        np.array([[1, 2], [0, 0], [1, 0]], np.int32), np.eye(2),
    )  # fmt: skip
    card = Card("forest", "random_forest", (CardSource(1, bands),), table, arguments={"features": "pixel"})
    save_model(str(folder / "forest.safetensors"), card, forest.tensors())
    torch.manual_seed(0)
    module = build_network("simple_cnn", BANDS, 2, 16)
    card = Card("network", "simple_cnn", (CardSource(16, bands),), table)
    save_model(str(folder / "simple_cnn.safetensors"), card, module_tensors(module))


def sparse(path, side, islands=8):
    """Write a scene of which only some squares of 1024 pixels are stored."""
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=BANDS, dtype="uint8", nodata=0, tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", SPARSE_OK=True, BIGTIFF="YES", crs="EPSG:32721",
        transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6),
    ) as dataset:  # fmt: skip
        for row, col in rng.integers(0, max(side - 1024, 1) // 512 + 1, (islands, 2)) * 512:
            size = min(1024, side)
            values = rng.integers(1, 255, (BANDS, size, size), np.uint8)
            dataset.write(values, window=Window(int(col), int(row), size, size))


def stored(folder, side=2048):
    """Write one scene in several ways; returns name -> path."""
    rng = np.random.default_rng(1)
    small = rng.integers(1, 255, (BANDS, side // 8, side // 8), np.uint8)
    values = np.kron(small, np.ones((1, 8, 8), np.uint8)) // 2 + rng.integers(1, 20, (BANDS, side, side), np.uint8)
    ways = {
        "deflate, tiles of 512": ("tif", dict(tiled=True, blockxsize=512, blockysize=512, compress="deflate")),
        "deflate, rows of one line": ("tif", dict(blockysize=1, compress="deflate")),
        "uncompressed, rows of one line": ("tif", dict(blockysize=1)),
        "JPEG 2000, lossless": ("jp2", dict(driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", YCBCR420="NO")),
    }
    found = {}
    for number, (name, (suffix, options)) in enumerate(ways.items()):
        found[name] = folder / f"way{number}.{suffix}"
        options = {"driver": "GTiff", **options}
        with rasterio.open(
            found[name], "w", width=side, height=side, count=BANDS, dtype="uint8", nodata=0, crs="EPSG:32721",
            transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6), **options,
        ) as dataset:  # fmt: skip
            dataset.write(values.astype(np.uint8))
    return found


def measure(scene, model, folder, times=1):
    """Return the best of several runs, each in a process of its own."""
    runs = []
    for _ in range(times):
        done = subprocess.run(
            [sys.executable, "-c", PART, str(scene), str(folder / f"{model}.safetensors"), str(folder / "map.tif")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda run: run["s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=60_000)
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder)
        # The network's graph is made, with torch, when it first maps; that is no part of what is measured.
        sparse(folder / "small.tif", 1024)
        measure(folder / "small.tif", "simple_cnn", folder)
        sparse(folder / "sparse.tif", side)
        print(f"sparse scene of {side} x {side}: seconds, peak memory in MB, pixels with a value")
        for model in ("forest", "simple_cnn"):
            found = measure(folder / "sparse.tif", model, folder)
            print(f"  {model:12} {found['s']:7.1f} {found['MB']:7.0f} {found['pixels']:12,}", flush=True)
        print("one scene of 2048 x 2048: seconds, ratio to the first, peak memory in MB")
        ways = stored(folder)
        for model in ("forest", "simple_cnn"):
            first = None
            for name, path in ways.items():
                found = measure(path, model, folder, times=2)
                first = first or found["s"]
                print(
                    f"  {model:12} {name:32} {found['s']:6.2f} {found['s'] / first:6.2f} {found['MB']:7.0f}", flush=True
                )


if __name__ == "__main__":
    main()
