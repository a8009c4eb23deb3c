"""Mapping: how near a whole job comes to its bare network, what memory it takes, and how soon a small one is done.

A made scene (10980 x 10980 pixels, four bands of uint16, deflated blocks of 512) is mapped by the simple CNN of 16 x 16
pixels. The bare graph, called for one tile after the other of data in memory and in as many threads, is timed before
and after each job: the ratio of the job to the mean of both is what counts, of several jobs the median. So is the graph
called for pieces of tiles, as the job does it because that is faster: a harder measure of what files and all else cost.
Every job runs in a process of its own, which tells its peak memory. Run by hand: ``make bench``.

Goals, on two cores: 70 % of the bare graph's rate, 550 MB, a small job within 1.2 s of the worker's start and within
0.3 s on a warm one. Exits 1 when one is missed.

Arguments: --side N (10980), --runs N (3), --large N ... (further sides for "memory over raster size", e.g. 20000 30000:
minutes, and up to 5 GB in the temporary folder), --interpreter PATH (of the engine's environment; default: this one).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import rasterio.drivers
import rasterio.shutil
from rasterio.transform import from_origin
from rasterio.windows import Window

BANDS, CLASSES, PATCH = 4, 6, 16
BLOCK = 512
SMALL, JPEG_SIDE = 271, 3072
# The scene that the bare network maps: larger than caches, for seconds: a burst is faster than what can be kept up.
IN_MEMORY, PASSES = 4096, 3
GOAL_RATIO, GOAL_MB, GOAL_GROWTH, GOAL_COLD_S, GOAL_WARM_S = 0.7, 550, 0.1, 1.2, 0.3
MEAN, DEVIATION = 1500.0, 300.0


# --- what is mapped --------------------------------------------------------------------------------------------------


def make_scene(path, side):
    """Write a scene that compresses as a real one does: smooth land with noise."""
    rng = np.random.default_rng(0)
    land = rng.normal(size=(BANDS, side // 64 + 3, side // 64 + 3))
    cols = np.linspace(0, side / 64, side)
    j, g = cols.astype(int), cols - cols.astype(int)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=BANDS, dtype="uint16", crs="EPSG:32654",
        transform=from_origin(4e5, 4e6, 10, 10), tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate",
        predictor=2, zlevel=1, BIGTIFF="IF_SAFER", num_threads=2,
    ) as dataset:  # fmt: skip
        for row in range(0, side, BLOCK):
            rows = np.arange(row, min(row + BLOCK, side)) / 64
            i, f = rows.astype(int), (rows - rows.astype(int))[:, None]
            strip = np.empty((BANDS, len(rows), side), "uint16")
            for band in range(BANDS):
                line = land[band][i] * (1 - f) + land[band][i + 1] * f
                strip[band] = MEAN + DEVIATION * (line[:, j] * (1 - g) + line[:, j + 1] * g)
                strip[band] += rng.integers(0, 81, strip.shape[1:], dtype="uint16")
            dataset.write(strip, window=Window(0, row, side, len(rows)))


def make_model(path):
    """Write a simple CNN with random weights, and its graphs into the engine's cache, as training does."""
    import torch
    from deepscape.engine.graphs import graphs_of
    from deepscape.engine.modelfiles import module_tensors, save_model
    from deepscape.models.build import build_network
    from deepscape.models.cards import Card, CardBand, CardSource, read_card
    from deepscape.tasks.classtable import ClassEntry, palette_colour
    from deepscape.tasks.context import Context

    torch.manual_seed(0)
    module = build_network("simple_cnn", BANDS, CLASSES, PATCH)
    bands = tuple(CardBand("", MEAN, DEVIATION, MEAN, DEVIATION) for _ in range(BANDS))
    table = tuple(ClassEntry(i + 1, f"class {i + 1}", palette_colour(i)) for i in range(CLASSES))
    card = Card("network", "simple_cnn", (CardSource(PATCH, bands, "uint16"),), table, res_m=10.0)
    save_model(path, card, module_tensors(module))
    graphs_of(path, read_card(path), Context())


# --- in a process of its own -----------------------------------------------------------------------------------------


def bare(model, device):
    """Return the rates of the network alone on a scene in memory, in pixels a second, in a job's threads.

    That of the runtime as a job calls it; and that of the bare graph, called for whole tiles, where there is a graph.
    """
    from concurrent.futures import ThreadPoolExecutor

    from deepscape.engine.runtimes import Model, Wishes, create_runtime
    from deepscape.models.cards import read_card
    from deepscape.tasks.context import Context

    runtime = create_runtime(Model(read_card(model), model), Wishes(device=device), Context())
    margin = runtime.geometry.before + runtime.geometry.after
    scene = np.random.default_rng(0).standard_normal((BANDS, IN_MEMORY + margin, IN_MEMORY + margin), np.float32)
    scene = scene * DEVIATION + MEAN
    wanted = np.ones((BLOCK, BLOCK), bool)
    places = [(row, col) for row in range(0, IN_MEMORY, BLOCK) for col in range(0, IN_MEMORY, BLOCK)]

    def window(place):
        row, col = place
        return scene[:, row : row + BLOCK + margin, col : col + BLOCK + margin]

    ways = {"rate": lambda place: runtime.best(window(place), wanted, True)}
    if hasattr(runtime, "_evaluate"):
        ways["tiles"] = lambda place: runtime._evaluate(window(place)[None], "classes")
    seconds = dict.fromkeys(ways, 0.0)
    with ThreadPoolExecutor(runtime.beside) as pool:
        for way in ways.values():
            list(pool.map(way, places[: runtime.beside]))
        for _ in range(PASSES):
            for name, way in ways.items():
                begun = time.perf_counter()
                list(pool.map(way, places))
                seconds[name] += time.perf_counter() - begun
    rates = {name: PASSES * len(places) * wanted.size / spent for name, spent in seconds.items()}
    return {"tiles": rates["rate"], **rates, "runtime": runtime.name}


def job(scene, model, output, device):
    """Map a scene; return rate, peak memory, the network's share of the threads' time, and computed pixels."""
    from deepscape.engine import inference
    from deepscape.tasks.context import Context
    from deepscape.tasks.jobs import Classify, RasterSource

    spent, computed, begun, threads, lines = [], [], [], [], []
    traverse = inference._traverse

    def timed(mapper, context):
        runtime = mapper.runtime
        best = runtime.best

        def count(values, wanted, whole=False):
            since = time.perf_counter()
            found = best(values, wanted, whole)
            spent.append(time.perf_counter() - since)
            return found

        def evaluated(values, output):
            computed.append(values[0, 0].size)
            return evaluate(values, output)

        if hasattr(runtime, "_evaluate"):
            evaluate, runtime._evaluate = runtime._evaluate, evaluated
        runtime.best = count
        threads.append(runtime.beside)
        begun.append(time.perf_counter())
        traverse(mapper, context)

    class Log(Context):
        mapped = 0.0

        def log(self, text):
            lines.append(text)

        def progress(self, done, total, stage="", unit=""):
            if stage == "Mapping" and done == total:
                self.mapped = time.perf_counter()

    inference._traverse = timed
    context = Log()
    result = inference.classify(Classify(RasterSource(scene), model, output, device_choice=device), context)
    status = Path("/proc/self/status")
    peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "x 0")
    return {
        "seconds": result.seconds, "rate": result.pixels / result.seconds, "peak_mb": int(peak.split()[1]) * 1024 / 1e6,
        "inside": sum(spent) / threads[0] / (context.mapped - begun[0]), "computed": sum(computed) / result.pixels,
        "mapping_s": context.mapped - begun[0], "device": result.device, "lines": lines,
        "imported": [name for name in ("torch", "sklearn", "geopandas", "lightning") if name in sys.modules],
    }  # fmt: skip


def child(interpreter, what, *arguments):
    """Return what a function of this file gives in a process of its own."""
    command = [interpreter, __file__, "--child", what, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if found.returncode:
        raise SystemExit(found.stderr[-3000:])
    return json.loads(found.stdout.splitlines()[-1])


# --- the table -------------------------------------------------------------------------------------------------------


class Table:
    """Lines of figures with their goals; remembers whether one was missed."""

    missed = False

    def line(self, what, value, goal="", met=True):
        """Print a line."""
        self.missed |= not met
        print(f"{what:<58}{value:>22}   {goal}{'' if met else '  MISSED'}", flush=True)


def whole_job(table, interpreter, folder, scene, model, runs, device="cpu"):
    """Print how a job compares to its bare graph; return its peak memory."""
    alone, jobs = [child(interpreter, "bare", model, device)], []
    for _ in range(runs):
        jobs.append(child(interpreter, "job", scene, model, folder / "map.tif", device))
        alone.append(child(interpreter, "bare", model, device))

    def shares(way):
        rates = [each[way] for each in alone]
        return [done["rate"] / statistics.mean(beside) for done, beside in zip(jobs, zip(rates, rates[1:]))]

    found, ratio = sorted(zip(jobs, shares("tiles")), key=lambda pair: pair[1])[runs // 2]
    for way, what in (("tiles", "bare graph"), ("rate", "the same in pieces")):
        rate = statistics.mean(each[way] for each in alone)
        table.line(f"{what} on {found['device']}, mean of {len(alone)}", f"{rate / 1e6:.2f} Mpx/s")
    table.line(f"whole job, {found['seconds']:.1f} s, median of {runs}", f"{found['rate'] / 1e6:.2f} Mpx/s")
    easier, harder = shares("tiles"), shares("rate")
    goal = f"{min(easier):.0%} to {max(easier):.0%}, goal {GOAL_RATIO:.0%}"
    table.line("  share of the bare graph's rate", f"{ratio:.0%}", goal, ratio >= GOAL_RATIO)
    table.line(
        "  share of its rate in pieces", f"{statistics.median(harder):.0%}", f"{min(harder):.0%} to {max(harder):.0%}"
    )
    table.line("  time inside the network, while mapping", f"{found['inside']:.0%}")
    table.line("  writing the rasters and all else", f"{found['seconds'] - found['mapping_s']:.1f} s")
    table.line(
        "  pixels that the network is given to useful ones", f"{found['computed']:.3f}" if found["computed"] else "?"
    )
    peak = found["peak_mb"]
    table.line("  peak memory", f"{peak:.0f} MB", f"goal {GOAL_MB} MB", device != "cpu" or peak <= GOAL_MB)
    table.line("  imported for nothing", ", ".join(found["imported"]) or "nothing", "", not found["imported"])
    return peak


def memory_over_size(table, interpreter, folder, model, peak, sides):
    """Print the peak memory of scenes of other sides, which shall not grow with them."""
    most = peak * (1 + GOAL_GROWTH)
    for side in sides:
        scene = folder / "large.tif"
        make_scene(scene, side)
        found = child(interpreter, "job", scene, model, folder / "large_map.tif", "cpu")
        scene.unlink()
        table.line(
            f"memory over raster size: {side} x {side}, {found['rate'] / 1e6:.2f} Mpx/s", f"{found['peak_mb']:.0f} MB",
            f"{found['peak_mb'] / peak - 1:+.0%}, goal {GOAL_GROWTH:.0%}", found["peak_mb"] <= most,
        )  # fmt: skip


def jpeg_2000(table, interpreter, folder, scene, model):
    """Print the rate of a JPEG 2000 scene, where the driver is there: decoding is what takes its time."""
    if "JP2OpenJPEG" not in rasterio.drivers.raster_driver_extensions().values():
        table.line("JPEG 2000", "no driver")
        return
    with rasterio.open(scene) as dataset:
        side = min(JPEG_SIDE, dataset.width)
        values, profile = dataset.read(window=Window(0, 0, side, side)), dataset.profile
    cut, coded = folder / "cut.tif", folder / "cut.jp2"
    profile.update(width=side, height=side)
    with rasterio.open(cut, "w", **profile) as dataset:
        dataset.write(values)
    rasterio.shutil.copy(cut, coded, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    rates = [child(interpreter, "job", path, model, folder / "j.tif", "cpu")["rate"] for path in (cut, coded)]
    table.line(
        f"JPEG 2000, {side} x {side}", f"{rates[1] / 1e6:.2f} Mpx/s", f"{rates[1] / rates[0]:.0%} of a GeoTIFF's"
    )


def small_job(table, interpreter, folder, model):
    """Print what a small job takes from the worker's start, and on a warm worker, to the raster on the disk."""
    from deepscape.tasks import client
    from deepscape.tasks.jobs import Classify, RasterSource

    make_scene(folder / "small.tif", SMALL)
    small = Classify(RasterSource(str(folder / "small.tif")), model, str(folder / "small_map.tif"))
    cold, warm = [], []
    for _ in range(4):
        pool = client.pool()
        for seconds in (cold, warm, warm, warm):
            begun = time.perf_counter()
            client.run_job(small, interpreter=interpreter, scratch=str(folder))
            seconds.append(time.perf_counter() - begun)
        pool.shutdown()
    first, next_ones = min(cold[1:]), statistics.median(warm)
    table.line(
        f"{SMALL} x {SMALL} from the worker's start", f"{first:.2f} s", f"goal {GOAL_COLD_S} s", first <= GOAL_COLD_S
    )
    table.line("  on a warm worker", f"{next_ones:.2f} s", f"goal {GOAL_WARM_S} s", next_ones <= GOAL_WARM_S)


def main(arguments):
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=10980)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--large", type=int, nargs="*", default=[])
    parser.add_argument("--interpreter", default=sys.executable)
    options = parser.parse_args(arguments)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="deepscape-bench-") as name:
        folder = Path(name)
        model = str(folder / "model.safetensors")
        make_model(model)
        make_scene(folder / "scene.tif", options.side)
        load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
        print(f"{options.side} x {options.side} x {BANDS} uint16, {os.cpu_count()} cores{load}")
        peak = whole_job(table, options.interpreter, folder, folder / "scene.tif", model, options.runs)
        memory_over_size(table, options.interpreter, folder, model, peak, options.large)
        jpeg_2000(table, options.interpreter, folder, folder / "scene.tif", model)
        small_job(table, options.interpreter, folder, model)
        import torch

        if torch.cuda.is_available():
            whole_job(table, options.interpreter, folder, folder / "scene.tif", model, options.runs, "cuda")
        else:
            table.line("GPU", "none here")
    return 1 if table.missed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps({"bare": bare, "job": job}[sys.argv[2]](*sys.argv[3:])))
    else:
        sys.exit(main(sys.argv[1:]))
