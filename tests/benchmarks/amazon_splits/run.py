"""Ten class-stratified polygon splits of all 25 polygons of the Amazon scene: the Compact CNN beside simpler methods.

Run by `make bench BENCH=tests/benchmarks/amazon_splits/run.py`. Half of each class's polygons train (5/4/2/2), the rest
is scored once; no epoch is chosen on the held-out part. Prints kappa per split, mean, lowest value and the paired
differences to the Compact CNN with their standard error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

import numpy as np
from deepscape.demo import baselines
from deepscape.engine import forest, patches, splitting, training, vectorsampling
from deepscape.engine.datasets import PatchDataset
from deepscape.tasks import jobs
from deepscape.tasks.context import Context

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "demo" / "data"
SEEDS = range(10)
EPOCHS = 30
PATCH_SIZE = 7


def all_polygons(folder: Path) -> str:
    """Write the 25 polygons into one layer."""
    import geopandas
    import pandas

    layers = [geopandas.read_file(DATA / f"{role}_polygons.gpkg") for role in ("train", "validation")]
    path = str(folder / "polygons.gpkg")
    geopandas.GeoDataFrame(pandas.concat(layers, ignore_index=True), crs=layers[0].crs).to_file(path)
    return path


def split(folder: Path, polygons: str, seed: int) -> tuple[str, str]:
    """Divide the polygons, and cut one patch dataset from each part."""
    divided = str(folder / f"split_{seed}.gpkg")
    splitting.split_samples(
        jobs.SplitSamples(
            jobs.VectorSource(polygons), "class_id", divided, train_share=0.5, validation_share=0.0, seed=seed
        ),
        Context(),
    )
    import geopandas

    frame = geopandas.read_file(divided)
    scene = jobs.RasterSource(str(DATA / "sen2.tif"))
    folders = []
    for part in ("train", "test"):
        vector, points = str(folder / f"{part}_{seed}.gpkg"), str(folder / f"{part}_{seed}_samples.gpkg")
        chosen = frame[frame["split"] == part]
        if part == "train":
            print(f"split {seed}: training polygons per class {chosen.groupby('class_id').size().to_dict()}", end="  ")
        chosen.to_file(vector)
        vectorsampling.select_vector_samples(
            jobs.SelectVectorSamples(jobs.VectorSource(vector), "class_id", scene, points, strategy="all"), Context()
        )
        target = str(folder / f"{part}_{seed}_patches")
        patches.extract_patches(
            jobs.ExtractPatches(
                scene, jobs.VectorSource(points), "class_id", target, patch_size=PATCH_SIZE, edge="reflect"
            ),
            Context(),
        )
        folders.append(target)
    return folders[0], folders[1]


def kappas(folder: Path, train: str, test: str, seed: int) -> Dict[str, float]:
    """Return the kappa of every method on the held-out polygons' pixels."""
    found: Dict[str, float] = {}
    for title, network in (("Compact CNN", "compact_cnn"), ("Pixel network", "pixel_network")):
        job = jobs.TrainClassifier(
            train, str(folder / f"{network}_{seed}.safetensors"), test=test, validation_share=0.0, network=network,
            epochs=EPOCHS, patience=0, seed=seed,
        )  # fmt: skip
        result = training.train_classifier(job, Context())
        found[title] = result.kappa
        if network == "compact_cnn":
            shared = result.shared_pixels
    for features in ("pixel", "window"):
        forest_job = jobs.TrainRandomForest(
            train, str(folder / f"{features}_{seed}.safetensors"), test=test, validation_share=0.0, features=features,
            seed=seed,
        )  # fmt: skip
        found[f"Random Forest, {features}"] = forest.train_random_forest(forest_job, Context()).kappa
    found["Logistic regression"] = baselines.logistic(train, test, seed)["kappa"]
    row = "  ".join(f"{method} {kappa:.3f}" for method, kappa in found.items())
    print(f"({len(PatchDataset(train))} / {len(PatchDataset(test))} pixels, {shared} shared)  {row}", flush=True)
    return found


def main() -> None:
    """Run the ten splits and print the table."""
    rows: List[Dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        polygons = all_polygons(folder)
        for seed in SEEDS:
            rows.append(kappas(folder, *split(folder, polygons, seed), seed))
    ours = np.array([row["Compact CNN"] for row in rows])
    print(f"\n{'method':24s}{'mean':>8s}{'lowest':>8s}{'CNN minus it, paired':>28s}")
    for method in rows[0]:
        values = np.array([row[method] for row in rows])
        difference = ours - values
        error = difference.std(ddof=1) / np.sqrt(len(rows))
        paired = "" if method == "Compact CNN" else f"{difference.mean():+.4f} +- {error:.4f}"
        print(f"{method:24s}{values.mean():8.4f}{values.min():8.4f}{paired:>28s}")
    print(json.dumps(rows))
    if ours.mean() < 0.98 or ours.min() < 0.90:
        sys.exit("The Compact CNN's mean kappa is under 0.98 or a split is under 0.90.")


if __name__ == "__main__":
    main()
