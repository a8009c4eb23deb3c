"""Mapping with a U-Net: what of a job's time is the network, how many pixels it computes, and how it compares.

A made scene of four bands is mapped by a U-Net of width 32 and depth 4 with random weights, exactly: with the margins
that it needs. In the same run, turn by turn, the same network in ONNX Runtime maps the scene as plugins do that cut it
into tiles of 512 pixels with an overlap of 15 %, one after the other, in all threads; its map depends on the tiles. It
is timed as the Deepness plugin does it, which compares the scores with a threshold and takes the largest in numpy, and
once more with a graph that says the classes itself, as ours do.
The job is done by each runtime that is installed. Each job runs in a process of its own, which tells its peak memory.
"Computed / useful" compares the network's multiplications with those that the scene in one piece would take. Rates are
those of the median run, ratios the median of the rounds' own, so that a neighbour on the machine slows down both. A
job's first window takes about a second more than the next ones, for its memory is new: much of a scene of 2048 x 2048
(--side 2048), little of a whole one. Run by hand: ``make bench``.

Goals, of the fastest runtime: 90 % of the threads' time inside the network, 1.4 times the rate of the plain tiles.
Exits 1 when one is missed.

Arguments: --side N (4096), --runs N (3), --memory MB (the job's own default), --interpreter PATH (of the engine's
environment; default: this one).
"""

import argparse
import copy
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

BANDS, CLASSES = 4, 6
MEAN, DEVIATION = 1500.0, 300.0
TILE, OVERLAP, THRESHOLD = 512, 0.15, 0.5
GOAL_SHARE, GOAL_RATIO = 0.9, 1.4


def make_scene(path, side):
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=BANDS, dtype="uint16", crs="EPSG:32654",
        transform=from_origin(4e5, 4e6, 10, 10), tiled=True, blockxsize=512, blockysize=512, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(rng.normal(MEAN, DEVIATION, (BANDS, side, side)).clip(0).astype("uint16"))


def make_model(path):
    """Write a U-Net with random weights and what probing says of it, and its graph into the engine's cache.

    Returns the file of the same network as it is, padded: what plain tiles are mapped with.
    """
    import torch
    from deepscape.engine.graphexport import export_network
    from deepscape.engine.graphs import graphs_of
    from deepscape.engine.modelfiles import module_tensors, save_model
    from deepscape.engine.probing import probe
    from deepscape.models.build import build_network
    from deepscape.models.cards import Card, CardBand, CardSource, read_card
    from deepscape.tasks.classtable import ClassEntry, palette_colour
    from deepscape.tasks.context import Context

    torch.manual_seed(0)
    network = build_network("unet", BANDS, CLASSES, 64)
    begun = time.perf_counter()
    field = probe(network, BANDS)
    print(f"probed in {time.perf_counter() - begun:.1f} s: {field}")
    bands = tuple(CardBand("", MEAN, DEVIATION, MEAN, DEVIATION) for _ in range(BANDS))
    table = tuple(ClassEntry(i + 1, f"class {i + 1}", palette_colour(i)) for i in range(CLASSES))
    card = Card(
        "network", "unet", (CardSource(64, bands, "uint16"),), table, res_m=10.0, output="pixels",
        context=field.context, margin=field.margin, stride=field.stride,
    )  # fmt: skip
    save_model(path, card, module_tensors(network))
    graphs_of(path, read_card(path), Context())
    padded = Path(path).with_suffix(".onnx")
    padded.write_bytes(export_network(network, replace(card, context="tile", margin=None), Context()).dense)
    return str(padded), network, field


def work(network, field, run, side):
    """Return the multiplications of a run, in those of the scene in one piece."""
    import torch
    from deepscape.engine.subpixel import convolved_before_upsampling
    from deepscape.engine.unpadding import unpadded_network
    from torch.utils.flop_counter import FlopCounterMode

    def of(module, height, width):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.empty(1, BANDS, height, width, device="meta"))
        return counter.get_total_flops()

    module = network
    if run["exact"]:
        module = unpadded_network(network, BANDS, field.stride, field.margin)
        module = convolved_before_upsampling(module, BANDS, 2 * field.margin + field.stride)
    module, network = (copy.deepcopy(each).to("meta") for each in (module, network))
    on_grid = (lambda length: length // field.stride * field.stride) if run["exact"] else int
    computed = sum(count * of(module, on_grid(height), on_grid(width)) for height, width, count in run["windows"])
    return computed / of(network, side, side)


# --- in a process of its own -----------------------------------------------------------------------------------------


def job(scene, model, output, memory, runtime):
    """Map as the engine does; return seconds of mapping, the network's share, and the windows that it was given."""
    from deepscape.engine.inference import classify
    from deepscape.engine.runtimes.graph import GraphRuntime
    from deepscape.tasks.context import Context
    from deepscape.tasks.jobs import Classify, RasterSource

    calls, lines = [], []
    best = GraphRuntime.best

    def timed(runtime, values, wanted, whole=False):
        since = time.perf_counter()
        found = best(runtime, values, wanted, whole)
        calls.append((since, time.perf_counter() - since, values.shape[1:], runtime.beside))
        return found

    class Log(Context):
        def log(self, text):
            lines.append(text)

    GraphRuntime.best = timed
    classify(Classify(RasterSource(scene), model, output, memory=memory, runtime=runtime, resume=False), Log())
    seconds = time.perf_counter() - min(since for since, *_ in calls)
    return {
        "seconds": seconds,
        "share": sum(spent for _, spent, *_ in calls) / (seconds * calls[0][3]),
        "windows": [(*size, 1) for *_, size, _ in calls],
        "exact": True,
        "said": next(line for line in lines if line.startswith("Mapping ")),
    }


def plain_tiles(scene, graph, chosen):
    """Map in overlapping tiles, one after the other; what each says of its middle is kept.

    Args:
        scene: the raster.
        graph: of the padded network.
        chosen: where the class is: "numpy" or "graph".
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def classes_of(values):
        if chosen == "graph":
            return session.run(["classes"], {"values": values})[0][0]
        scores = session.run(["logits"], {"values": values})[0]
        scores[scores < THRESHOLD] = 0.0
        return np.argmax(scores, axis=1)[0]

    classes_of(np.full((1, BANDS, 64, 64), MEAN, "float32"))
    begun, calls, half = time.perf_counter(), 0, int(TILE * OVERLAP / 2)
    step = TILE - 2 * half
    with rasterio.open(scene) as dataset:
        found = np.zeros(dataset.shape, "uint8")
        for row in range(0, dataset.height, step):
            for col in range(0, dataset.width, step):
                window = rasterio.windows.Window(col - half, row - half, TILE, TILE)
                values = dataset.read(window=window, boundless=True, fill_value=int(MEAN)).astype("float32")
                inner = classes_of(values[None])[half : half + step, half : half + step]
                place = found[row : row + step, col : col + step]
                place[:] = inner[: place.shape[0], : place.shape[1]]
                calls += 1
    return {"seconds": time.perf_counter() - begun, "windows": [(TILE, TILE, calls)], "exact": False}


def in_a_process(interpreter, *arguments):
    done = subprocess.run([interpreter, __file__, "--child", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def child(kind, *arguments):
    if kind == "job":
        scene, model, output, memory, runtime = arguments
        found = job(scene, model, output, int(memory) or None, runtime)
    else:
        found = plain_tiles(*arguments)
    # Not ru_maxrss, which a process takes over from the one that starts it: here the one that made the graphs.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({**found, "peak_mb": peak * 1024 / 1e6}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--interpreter", default=sys.executable)
    parser.add_argument("--child", nargs="+")
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    with tempfile.TemporaryDirectory() as name:
        scene, model, output = (str(Path(name) / file) for file in ("scene.tif", "m.safetensors", "map.tif"))
        make_scene(scene, options.side)
        graph, network, field = make_model(model)
        runtimes = ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
        plain = {f"plain tiles of 512, overlap 15 %, argmax in {where}": where for where in ("numpy", "graph")}
        runs = {name: [] for name in (*runtimes, *plain)}
        for _ in range(options.runs):
            for runtime in runtimes:
                arguments = scene, model, output, options.memory, runtime
                runs[runtime].append(in_a_process(options.interpreter, "job", *arguments))
            for name, where in plain.items():
                runs[name].append(in_a_process(options.interpreter, "tiles", scene, graph, where))
    middle = {name: sorted(found, key=lambda run: run["seconds"])[len(found) // 2] for name, found in runs.items()}
    for name, run in middle.items():
        if "said" in run:
            print(run["said"])
        print(
            f"{name}: {options.side**2 / run['seconds'] / 1e6:.3f} Mpx/s, computed / useful "
            f"{work(network, field, run, options.side):.2f}, peak {run['peak_mb']:.0f} MB"
        )
    as_plugin, in_graph = plain

    def ratios(runtime, tiles):
        return [each["seconds"] / ours["seconds"] for each, ours in zip(runs[tiles], runs[runtime])]

    for runtime in runtimes:
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios(runtime, as_plugin))
        print(f"{runtime}: {told} times the rate of plain tiles, round by round")
    fastest = min(runtimes, key=lambda name: middle[name]["seconds"])
    share = middle[fastest]["share"]
    ratio, less = (statistics.median(ratios(fastest, tiles)) for tiles in (as_plugin, in_graph))
    print(f"inside the network: {share:.1%} of the threads' time (goal {GOAL_SHARE:.0%})")
    print(f"exact windows against plain tiles: {ratio:.2f} times the rate (goal {GOAL_RATIO})")
    print(f"against those whose classes the graph says: {less:.2f} times the rate")
    return 0 if share >= GOAL_SHARE and ratio >= GOAL_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
