"""A segmenter beside a Random Forest with window features where labels are noisy: Landsat 7 and a map of an older date.

Run by `make bench BENCH=tests/benchmarks/noisy_labels/run.py`; needs the data folder that DEEPSCAPE_DATA names, or
../shared/data beside the repository. The labels are those of another year: the figures are agreement, not accuracy.

Blocks of 111 x 123 pixels alternate like a chessboard: one half trains, the other one is scored, except what lies
within 8 pixels of the training half; then in turn. Left out are class 7, which has 194 pixels, and the pixels whose
second shortwave-infrared band is 0. The forest gets at most 500 samples of each class, and the same with 5000; each
method runs with three seeds. Printed are kappa of every run, and the paired differences with their standard error.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Dict, List

import geopandas
import numpy as np
import rasterio
import scipy.ndimage
from deepscape.engine import forest, inference, patches, rastersampling, segmentation
from deepscape.engine.metrics import confusion_matrix, scores
from deepscape.tasks import jobs
from deepscape.tasks.context import Context
from shapely.geometry import box

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("DEEPSCAPE_DATA", ROOT.parent / "shared" / "data")) / "landsat7_nc"
SCENE, CLASSES = DATA / "lsat7_2000_6bands.tif", DATA / "landclass7.tif"
BLOCK, GUARD = (111, 123), 8
SEEDS = range(3)
SAMPLES = (500, 5000)
PATCH = 9
WINDOW, WINDOWS, EPOCHS = 64, 96, 40


def halves() -> tuple[Any, Any, Any]:
    """Return the labels with 0 where nothing is labelled, which block of the chessboard a pixel is in, and the grid."""
    with rasterio.open(SCENE) as scene, rasterio.open(CLASSES) as raster:
        labels, profile = raster.read(1), raster.profile
        labels[(scene.read(6) == 0) | (labels == 7)] = 0
    rows, cols = np.indices(labels.shape)
    return labels, (rows // BLOCK[0] + cols // BLOCK[1]) % 2, profile


def write_labels(path: Path, labels: Any, profile: Any) -> jobs.RasterSource:
    """Write labels whose no-data is 0."""
    with rasterio.open(path, "w", **{**profile, "nodata": 0}) as raster:
        raster.write(labels, 1)
    return jobs.RasterSource(str(path))


def write_areas(path: Path, half: int, profile: Any) -> jobs.VectorSource:
    """Write the blocks of a half as areas that train."""
    transform, boxes = profile["transform"], []
    for row in range(0, profile["height"], BLOCK[0]):
        for col in range(0, profile["width"], BLOCK[1]):
            if (row // BLOCK[0] + col // BLOCK[1]) % 2 == half:
                bottom, right = min(row + BLOCK[0], profile["height"]), min(col + BLOCK[1], profile["width"])
                (left, top), (east, south) = transform * (col, row), transform * (right, bottom)
                boxes.append(box(left, south, east, top))
    geopandas.GeoDataFrame({"split": ["train"] * len(boxes)}, geometry=boxes, crs=profile["crs"]).to_file(path)
    return jobs.VectorSource(str(path))


def kappa_of(model: str, folder: Path, reference: Any) -> float:
    """Map the scene with a model; return the kappa of its agreement with the reference's labelled pixels."""
    job = jobs.Classify(jobs.RasterSource(str(SCENE)), model, str(folder / "map.tif"), resume=False)
    with rasterio.open(inference.classify(job, Context()).output) as raster:
        mapped = raster.read(1)
    known = (reference > 0) & (mapped != raster.nodata)
    return float(scores(confusion_matrix(reference[known], mapped[known], 8)).kappa)


def forest_of(train: jobs.RasterSource, count: int, seed: int, folder: Path) -> str:
    """Train a Random Forest with window features on samples of the training half."""
    points = str(folder / f"points_{count}.gpkg")
    rastersampling.select_samples(
        jobs.SelectSamples(train, points, strategy="upto", count=count, sampler="random", seed=seed), Context()
    )
    dataset = str(folder / f"patches_{count}")
    patches.extract_patches(
        jobs.ExtractPatches(
            jobs.RasterSource(str(SCENE)), jobs.VectorSource(points), "class_id", dataset, patch_size=PATCH,
            edge="reflect", max_nodata=1.0,
        ),
        Context(),
    )  # fmt: skip
    job = jobs.TrainRandomForest(dataset, str(folder / "forest"), features="window", seed=seed, validation_share=0.0)
    return forest.train_random_forest(job, Context()).output


def segmenter_of(train: jobs.RasterSource, areas: jobs.VectorSource, seed: int, folder: Path) -> str:
    """Train a U-Net on the training half."""
    job = jobs.TrainSegmenter(
        str(folder / "unet"), source=jobs.RasterSource(str(SCENE)), labels=train, areas=areas, patch_size=WINDOW,
        windows=WINDOWS, epochs=EPOCHS, network_arguments={"width": 16, "depth": 3}, class_weights="auto", seed=seed,
        resume=False,
    )  # fmt: skip
    return segmentation.train_segmenter(job, Context()).output


def main() -> None:
    """Run all methods on both halves with all seeds; print the table."""
    if not SCENE.exists():
        print(f"The data folder {DATA} is not there: nothing was measured.")
        return
    labels, side, profile = halves()
    names = ["U-Net", *(f"Random Forest, {count} per class" for count in SAMPLES)]
    found: Dict[str, List[float]] = {name: [] for name in names}
    for half in (0, 1):
        near = scipy.ndimage.binary_dilation(side == half, np.ones((2 * GUARD + 1,) * 2))
        reference = np.where(near, 0, labels)
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                train = write_labels(folder / "train.tif", np.where(side == half, labels, 0), profile)
                areas = write_areas(folder / "areas.gpkg", half, profile)
                models = [segmenter_of(train, areas, seed, folder)]
                models += [forest_of(train, count, seed, _made(folder / str(count))) for count in SAMPLES]
                for title, model in zip(names, models):
                    found[title].append(kappa_of(model, folder, reference))
            told = "  ".join(f"{title} {values[-1]:.3f}" for title, values in found.items())
            print(f"half {half + 1}, seed {seed}: kappa {told}", flush=True)
    for title, values in found.items():
        print(f"{title}: mean kappa {np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}")
    for title in names[1:]:
        difference = np.array(found[names[0]]) - found[title]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        verdict = "more" if difference.mean() > error else "NOT more"
        print(f"U-Net - {title}: {difference.mean():+.3f}, standard error {error:.3f}: {verdict} than one")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
