"""How fast the segmenter trains: windows read from a raster on the fly beside one batch that is held in memory.

Run by `make bench BENCH=tests/benchmarks/training/run.py`. A U-Net of width 32 learns buildings from windows of 256
pixels of an orthophoto, if the data folder is there that DEEPSCAPE_DATA names, or ../shared/data beside the repository;
else from a made scene. Turn by turn, in the same process: an epoch of the segmenter's loop with each augmentation,
which reads, standardises and changes every window; as many steps of the same loop on one batch in memory; and as many
of a plain loop on it (forward, loss, backward, optimiser; no scores, no checks). Medians over the turns. What the
segmenter estimates before a training is compared with what an epoch takes.

Goals: 95 % of the windows per second of the same loop in memory, the estimate within 25 %. Exits 1 when one is missed.

Options: --batch N (4), --steps N of an epoch (8), --turns N (3), --width N (32), --loss NAME, --made.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import rasterio
import torch
from deepscape.engine.denseparts import card_source
from deepscape.engine.densesets import open_dense_roles
from deepscape.engine.devices import quiet, start_fabric
from deepscape.engine.loading import batches_of
from deepscape.engine.losses import loss_function
from deepscape.engine.optimising import Optimising
from deepscape.engine.segmentationfit import Fit
from deepscape.engine.segmentationsettings import choose_settings
from deepscape.engine.trainingtime import tell_time
from deepscape.models.build import build_network
from deepscape.models.cards import Card
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from rasterio.transform import from_origin

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("DEEPSCAPE_DATA", ROOT.parent / "shared" / "data")) / "buildings_banepa"
SIZE, SIDE = 256, 2048
AUGMENTATIONS = ("flips", "full")
GOAL, GOAL_ESTIMATE = 0.95, 0.25


def data_of(folder: Path, made: bool) -> Dict[str, Any]:
    """Return the fields of a job that name image and labels."""
    if not made and (DATA / "ortho_train.tif").exists():
        return {
            "source": jobs.RasterSource(str(DATA / "ortho_train.tif")), "background": True,
            "label_features": jobs.VectorSource(str(DATA / "buildings.gpkg")),
        }  # fmt: skip
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(SIDE // 32, SIDE // 32)).repeat(32, 0).repeat(32, 1)
    image = (128 + 30 * coarse + rng.normal(0, 20, (3, SIDE, SIDE))).clip(1, 255).astype("uint8")
    profile = {
        "driver": "GTiff", "width": SIDE, "height": SIDE, "dtype": "uint8", "crs": "EPSG:32645", "tiled": True,
        "transform": from_origin(4e5, 3e6, 0.3, 0.3), "blockxsize": 256, "blockysize": 256, "compress": "deflate",
    }  # fmt: skip
    for name, pixels in (("image", image), ("labels", (coarse[None] > 0.5).astype("uint8") + 1)):
        with rasterio.open(folder / f"{name}.tif", "w", count=len(pixels), **profile) as raster:
            raster.write(pixels)
    return {
        "source": jobs.RasterSource(str(folder / "image.tif")), "labels": jobs.RasterSource(str(folder / "labels.tif")),
    }  # fmt: skip


def plain_steps(network: Any, values: Any, targets: Any, loss: Any, settings: Any) -> Callable[[], None]:
    """Return a step of a plain loop with the optimiser of the recipe."""
    values = values.to(memory_format=torch.channels_last)
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = Optimising(network, settings.optimising, 1, 1).optimizer

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(values), targets).backward()
        optimizer.step()

    return step


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def epoch_of(fit: Any) -> None:
    """Run the steps of the next epoch of a fit."""
    fit.progress.epoch, fit.progress.step = fit.progress.epoch + 1, 0
    fit._train()


def measure(options: argparse.Namespace, folder: Path) -> Dict[str, List[float]]:
    """Return the seconds of each turn by what was done, and those that were estimated."""
    context = Context()
    job = jobs.TrainSegmenter(
        str(folder / "model.safetensors"), patch_size=SIZE, batch_size=options.batch, loss=options.loss,
        windows=options.batch * options.steps, network_arguments={"width": options.width}, validation_share=0.0,
        epochs=1000, patience=0, **data_of(folder, options.made),
    )  # fmt: skip
    with quiet(), open_dense_roles(job, context) as roles:
        fabric = start_fabric("cpu", context, "full")
        torch.manual_seed(0)
        source, count = card_source(roles, context), len(roles.classes)

        def network() -> Any:
            return build_network("unet", len(source.bands), count, SIZE, job.network_arguments, count == 2)

        card = Card("network", "unet", (source,), roles.classes, output="pixels", binary=count == 2)
        settings = choose_settings(job, card, len(roles.training))
        fits = {
            name: Fit(fabric, network(), card, replace(settings, augmentation=name), roles, context)
            for name in AUGMENTATIONS
        }
        plan = [(0, list(range(options.batch)))]
        batch = next(iter(batches_of(roles.training, card, plan, 1, None, 0, context)))
        loss = loss_function(settings.loss, count, None, settings.binary)
        plain, held = plain_steps(network(), *batch, loss, settings), fits[AUGMENTATIONS[0]]

        def repeated(step: Callable[[], Any]) -> None:
            for _ in range(options.steps):
                step()

        work = {
            **{f"read on the fly, {name}": lambda fit=fit: epoch_of(fit) for name, fit in fits.items()},
            "one batch in memory": lambda: repeated(lambda: held._step(*batch)),
            "plain loop on it": lambda: repeated(plain),
        }
        held._step(*batch)
        plain()
        found: Dict[str, List[float]] = {name: [] for name in (*work, "estimated")}
        print(f"{roles.notes or ''} loss {settings.loss}, {torch.get_num_threads()} threads", flush=True)
        for turn in range(options.turns):
            # Another order in every turn: what another program takes of the processor meets each of them.
            for name in list(work)[turn % len(work) :] + list(work)[: turn % len(work)]:
                found[name].append(seconds_of(work[name]))
            found["estimated"].append(tell_time(fabric, network(), card, settings, roles, context) / settings.epochs)
    return found


def main() -> int:
    """Measure, print, and compare with the goals."""
    parser = argparse.ArgumentParser()
    for name, default in (("batch", 4), ("steps", 8), ("turns", 3), ("width", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--loss", default="")
    parser.add_argument("--made", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    windows = options.batch * options.steps
    reference = np.array(found["one batch in memory"])
    print(f"{'':28} windows/s  of the same loop in memory (per turn)")
    shares = {}
    for name, seconds in found.items():
        ratios = reference / np.array(seconds)
        shares[name] = float(np.median(ratios))
        turns = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name:28} {windows / np.median(seconds):9.2f}  {shares[name]:.1%} ({turns})")
    real = np.array(found[f"read on the fly, {AUGMENTATIONS[0]}"])
    estimate = float(np.median(np.array(found["estimated"]) / real))
    print(f"estimate before training / real time: {estimate:.2f} (goal: within {GOAL_ESTIMATE:.0%})")
    missed = min(shares[f"read on the fly, {name}"] for name in AUGMENTATIONS) < GOAL
    return int(missed or abs(estimate - 1) > GOAL_ESTIMATE)


if __name__ == "__main__":
    sys.exit(main())
