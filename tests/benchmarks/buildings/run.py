"""Buildings on an orthophoto: the segmenter beside a plain recipe on the same windows, and an encoder network.

Run by `make bench BENCH=tests/benchmarks/buildings/run.py`; needs the data folder that DEEPSCAPE_DATA names, or
../shared/data beside the repository. The orthophoto is taken at half resolution. The north trains; of the south, 32 m
away, the west half validates and the east half, 32 m farther, is scored once. Buildings across a line are not scored.

The plain recipe is a loop of some lines: a U-Net of width 16, 20 epochs of 160 windows of 128 pixels in batches of 8,
AdamW 2e-3 with one cycle, cross-entropy and Dice, flips and rotations, mapped in one piece, the larger probability
wins. The segmenter sees the same windows and has the same network. The encoder network is smp_unet at full resolution,
from weights learned from photographs; where they cannot be fetched the run says so, and it starts from random ones.
Intervals are bootstrapped over blocks of 128 pixels.

Options: --seeds N, --encoder NAME (of timm or segmentation-models-pytorch), --no-encoder, --no-plain.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import geopandas
import numpy as np
import rasterio
import torch
from deepscape.demo.make_buildings_data import half_resolution, three_areas
from deepscape.engine import inference, segmentation
from deepscape.engine.areas import TEST, VALIDATION, Crossing, PolygonAreas
from deepscape.engine.augmentation import augmentation_of, augmented
from deepscape.engine.bootstrap import block_bootstrap
from deepscape.engine.denseparts import card_source
from deepscape.engine.densesets import open_dense_roles
from deepscape.engine.grids import Grid
from deepscape.engine.metrics import confusion_matrix, scores
from deepscape.models.build import build_network
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from rasterio.features import rasterize

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("DEEPSCAPE_DATA", ROOT.parent / "shared" / "data")) / "buildings_banepa"
WIDTH, SIZE, WINDOWS, EPOCHS, BATCH, RATE = 16, 128, 160, 20, 8, 2e-3
BLOCK = 128


class Told(Context):
    """Keeps what the training says of its time."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: List[str] = []

    def log(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


class Scene:
    """The orthophoto at half resolution, the areas, and what of the test part is scored.

    Attributes:
        image: file.
        areas: layer with the field split.
        buildings: layer.
        truth: 1 where a building is ``(H, W)``.
        roles: `engine.areas` code of each pixel that is scored, 0 elsewhere ``(H, W)``.
    """

    def __init__(self, folder: Path) -> None:
        with rasterio.open(DATA / "ortho_train.tif") as source:
            pixels, transform = half_resolution(source)
            areas, crs = three_areas(source, DATA / "areas.gpkg"), source.crs
        shape = pixels.shape[1:]
        profile = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 3, "dtype": "uint8"}
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        self.image = str(folder / "ortho.tif")
        with rasterio.open(self.image, "w", crs=crs, transform=transform, **profile, **tiles) as raster:
            raster.write(pixels)
        layer = folder / "areas.gpkg"
        areas.to_file(layer)
        self.areas, self.buildings = jobs.VectorSource(str(layer)), jobs.VectorSource(str(DATA / "buildings.gpkg"))
        shapes = [(shape, 1) for shape in geopandas.read_file(DATA / "buildings.gpkg").geometry]
        self.truth = rasterize(shapes, out_shape=shape, transform=transform).astype(np.int64)
        grid = Grid(shape[1], shape[0], transform, crs)
        window = (0, 0, *shape)
        self.roles = np.array(PolygonAreas(self.areas, "split", grid, "ortho", Context()).read(window))
        across = Crossing(self.buildings, self.areas, grid, "ortho").read(window)
        if across is not None:
            self.roles[across] = 0

    def job(self, output: Path, seed: int, **changes: Any) -> jobs.TrainSegmenter:
        """Return the segmenter's job."""
        settings: Dict[str, Any] = {
            "network_arguments": {"width": WIDTH}, "windows": WINDOWS, "epochs": EPOCHS, "patience": 0,
            "class_weights": "auto",
        }  # fmt: skip
        return jobs.TrainSegmenter(
            str(output), source=jobs.RasterSource(self.image), label_features=self.buildings, background=True,
            areas=self.areas, patch_size=SIZE, seed=seed, resume=False, **{**settings, **changes},
        )  # fmt: skip

    def judge(self, mapped: Any) -> Tuple[float, float, float]:
        """Return the IoU of buildings on the test part, and its interval."""
        matrices = []
        height, width = self.truth.shape
        for row in range(0, height, BLOCK):
            for col in range(0, width, BLOCK):
                part = slice(row, row + BLOCK), slice(col, col + BLOCK)
                scored = self.roles[part] == TEST
                if scored.any():
                    matrices.append(confusion_matrix(self.truth[part][scored], mapped[part][scored], 2))
        found = np.stack(matrices)
        low, high = block_bootstrap(found, seed=0).iou[1]
        return float(scores(found.sum(axis=0)).iou[1]), float(low), float(high)


def plain(scene: Scene, seed: int, folder: Path) -> Any:
    """Train and map by the plain recipe on the segmenter's windows; returns the map ``(H, W)``."""
    torch.manual_seed(seed)
    network = build_network("unet", 3, 2, 0, {"width": WIDTH}, binary=True)
    steps = EPOCHS * -(-WINDOWS // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    chance = torch.Generator().manual_seed(seed)
    with open_dense_roles(scene.job(folder / "none", seed), Context()) as roles:
        bands = card_source(roles, Context()).bands
        mean, deviation = (np.array([getattr(b, name) for b in bands])[:, None, None] for name in ("mean", "std"))
        network.train()
        for epoch in range(1, EPOCHS + 1):
            for start in range(0, WINDOWS, BATCH):
                numbers = range(start, min(start + BATCH, WINDOWS))
                values, targets = roles.training.read(list(numbers), epoch)
                image = torch.from_numpy(((values - mean) / deviation).astype(np.float32))
                image, wanted = augmented(image, torch.from_numpy(targets), augmentation_of("flips"), chance)
                logit, known = network(image)[:, 1], wanted >= 0
                logit, wanted = logit[known], wanted[known].float()
                share = torch.sigmoid(logit)
                dice = 1 - (2 * (share * wanted).sum() + 1) / (share.sum() + wanted.sum() + 1)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, wanted) + dice
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    with rasterio.open(scene.image) as raster, torch.no_grad():
        image = torch.from_numpy(((raster.read() - mean) / deviation).astype(np.float32))
        return network.eval()(image[None])[0].argmax(0).numpy()


def mapped(scene: Scene, model: str, folder: Path, **changes: Any) -> Any:
    """Map the scene with a model; returns the classes ``(H, W)``."""
    job = jobs.Classify(jobs.RasterSource(scene.image), model, str(folder / "map.tif"), resume=False, **changes)
    with rasterio.open(inference.classify(job, Context()).output) as raster:
        return raster.read(1).astype(np.int64)


def main() -> None:
    """Run everything; print the table."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--encoder", default="tf_efficientnet_lite0")
    asked.add_argument("--no-encoder", action="store_true")
    asked.add_argument("--no-plain", action="store_true")
    given = asked.parse_args()
    if not DATA.exists():
        print(f"The data folder {DATA} is not there: nothing was measured.")
        return
    found: Dict[str, List[float]] = {}

    def tell(name: str, seed: int, classes: Any, seconds: float = 0.0) -> None:
        iou, low, high = scene.judge(classes)
        found.setdefault(name, []).append(iou)
        print(f"seed {seed}, {name}: IoU {iou:.4f} [{low:.3f}, {high:.3f}]  {seconds:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = Scene(folder)
        told = {role: int((scene.roles == role).sum()) for role in (VALIDATION, TEST)}
        print(f"{told[TEST]:,} pixels are scored, {told[VALIDATION]:,} validate.")
        for seed in range(given.seeds):
            if not given.no_plain:
                started = time.monotonic()
                tell("plain recipe", seed, plain(scene, seed, folder), time.monotonic() - started)
            context, started = Told(), time.monotonic()
            made = segmentation.train_segmenter(scene.job(folder / "unet", seed), context)
            seconds = time.monotonic() - started
            print(next(line for line in context.lines if "epochs take" in line))
            tell("segmenter", seed, mapped(scene, made.output, folder), seconds)
            tell("segmenter, looking from 8 sides", seed, mapped(scene, made.output, folder, tta="full"))
            if not given.no_encoder:
                arguments = {"encoder": given.encoder, "pretrained": True, "full_resolution": True}
                context, started = Told(), time.monotonic()
                other = scene.job(folder / "smp", seed, network="smp_unet", network_arguments=arguments)
                made = segmentation.train_segmenter(other, context)
                seconds = time.monotonic() - started
                print(*(line for line in context.lines if "epochs take" in line or "weights" in line), sep="\n")
                title = f"smp_unet, {given.encoder}"
                tell(title, seed, mapped(scene, made.output, folder), seconds)
                tell(f"{title}, looking from 8 sides", seed, mapped(scene, made.output, folder, tta="full"))
    for title, values in found.items():
        spread = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        print(f"{title}: mean IoU {np.mean(values):.4f}{spread}")
    if "plain recipe" in found:
        difference = np.mean(found["segmenter"]) - np.mean(found["plain recipe"])
        print(f"segmenter - plain recipe: {difference:+.4f} ({'met' if difference >= 0.02 else 'MISSED'}: 0.02)")
    if not given.no_encoder:
        difference = np.mean(found[f"smp_unet, {given.encoder}"]) - np.mean(found["segmenter"])
        print(f"encoder network - segmenter: {difference:+.4f} ({'met' if difference > 0 else 'MISSED'}: more)")


if __name__ == "__main__":
    main()
