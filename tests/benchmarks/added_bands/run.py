"""What a band adds: near infrared and NDVI for trees on aerial photographs, heights for classes of a LiDAR survey.

Run by `make bench BENCH=tests/benchmarks/added_bands/run.py`; needs the data folder that DEEPSCAPE_DATA names, or
../shared/data beside the repository. Every variant is trained by `trainsegmenter` straight from a raster, on the same
windows and the same split with three seeds, and `compareruns` pairs the runs of one seed. Printed are means with their
deviation, the paired differences with their standard error, and the verdict; that a band adds nothing is a result too.
Options: --study trees|lidar, --models FOLDER keeps data, models and reports there.

Trees: the photographs of trees_naip (red, green, blue, near infrared, 0.6 m) become one raster, 128 pixels apart, since
a training reads one; the published lists are the split. A disc of 3 m around every tree point is a tree, the rest is
background: the points are exact, the crowns are not. Discs that the edge of a photograph cuts are not scored.

LiDAR: the tiles of lidar_ign become rasters of 0.5 m: mean intensity, the highest return (DSM), and its height above
the ground (nDSM), which is the surveyed ground points' mean, interpolated linearly where there are none. A cell is of
the class that most of its points have: ground, low, medium or high vegetation, building. Of the three columns of two
tiles each, two train and the third one is scored, but for what lies within 5 m of the others; then in turn. The
differences are those of the columns, each the mean of three seeds. The ground points come from the same classification
as the labels, and the vegetation's classes are themselves heights above ground: the figure of nDSM says what a survey's
height is worth for its own classes. This study needs `laspy` and `lazrs`, which the engine does not have.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import geopandas
import numpy as np
import rasterio
import scipy.interpolate
import shapely
from deepscape.engine import comparison, segmentation
from deepscape.engine.pairing import difference, spoken_spread, spread
from deepscape.tasks import jobs
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from rasterio.transform import from_origin
from shapely.affinity import translate
from shapely.geometry import Point, box

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("DEEPSCAPE_DATA", ROOT.parent / "shared" / "data"))
TREES, LIDAR = DATA / "trees_naip", DATA / "lidar_ign"
SEEDS = range(3)
# Number of the comparison's table, class value or "" for all, and what it is called here.
Numbers = Sequence[Tuple[str, str, str]]

TREE_SETTINGS = {"patch_size": 128, "windows": 96, "epochs": 10, "network_arguments": {"width": 8}}
PHOTOGRAPH, GAP, CROWN_M = 256, 128, 3.0
LIDAR_SETTINGS = {"patch_size": 64, "windows": 48, "epochs": 16, "network_arguments": {"width": 8, "depth": 3}}
CELL_M, TILE_M, GUARD_M = 0.5, 50, 5.0
CLASSES = (
    ClassEntry(2, "ground", "#c2a06a"),
    ClassEntry(3, "low vegetation", "#b8e186"),
    ClassEntry(4, "medium vegetation", "#4dac26"),
    ClassEntry(5, "high vegetation", "#1b7837"),
    ClassEntry(6, "building", "#d7191c"),
)


@dataclass(frozen=True)
class Variant:
    """One choice of bands: a word for its files, and what is trained on."""

    name: str
    source: jobs.RasterSource


# --- training and comparing ------------------------------------------------------------------------------------------


def trained(variant: Variant, folder: Path, **settings: Any) -> List[str]:
    """Train a variant once with every seed; returns the models."""
    made = []
    for seed in SEEDS:
        job = jobs.TrainSegmenter(
            str(folder / f"{variant.name}_{seed}"),
            source=variant.source,
            patience=0,
            seed=seed,
            resume=False,
            **settings,
        )
        made.append(segmentation.train_segmenter(job, Context()).output)
    return made


def compared(base: Sequence[str], others: Sequence[str], folder: Path) -> List[Dict[str, str]]:
    """Compare models with those of the base; returns the rows of the table, which lies beside the report."""
    name = str(folder / f"{Path(others[0]).stem}_and_{Path(base[0]).stem}")
    job = jobs.CompareRuns((*base, *others), name, name, baseline=base[0])
    with open(comparison.compare_runs(job, Context()).csv, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def number(rows: Sequence[Dict[str, str]], group: str, metric: str, value: str) -> Dict[str, str]:
    """Return the row of a group's number."""
    return next(row for row in rows if (row["group"], row["metric"], row["class"]) == (group, metric, value))


def groups(rows: Sequence[Dict[str, str]]) -> List[str]:
    """Return the groups' titles, that of the base first."""
    return list(dict.fromkeys(row["group"] for row in rows))


def write_raster(path: Path, bands: Dict[str, Any], transform: Any, crs: Any, **profile: Any) -> str:
    """Write named bands ``(H, W)`` of one type as a raster; returns its path."""
    first = next(iter(bands.values()))
    size = {"driver": "GTiff", "count": len(bands), "height": first.shape[0], "width": first.shape[1]}
    with rasterio.open(path, "w", **size, dtype=first.dtype, crs=crs, transform=transform, **profile) as raster:
        for index, (name, values) in enumerate(bands.items(), start=1):
            raster.write(values, index)
            raster.set_band_description(index, name)
    return str(path)


def write_areas(path: Path, roles: Sequence[str], shapes: Sequence[Any], crs: Any) -> jobs.VectorSource:
    """Write which part trains, validates and tests."""
    geopandas.GeoDataFrame({"split": list(roles)}, geometry=list(shapes), crs=crs).to_file(path)
    return jobs.VectorSource(str(path))


# --- trees -----------------------------------------------------------------------------------------------------------


def photographs() -> List[Tuple[str, str]]:
    """Return role and name of every photograph, by the published lists."""
    lists = {"train": "train_socal.txt", "validation": "val_socal.txt", "test": "test_socal.txt"}
    return [(role, name) for role, file in lists.items() for name in (TREES / file).read_text().split()]


def tree_scene(folder: Path) -> Dict[str, Any]:
    """Write photographs, discs and areas side by side; returns the job's fields for them, with the raster's path."""
    known, pitch = photographs(), PHOTOGRAPH + GAP
    across = int(np.ceil(np.sqrt(len(known))))
    down = -(-len(known) // across)
    pixels = np.zeros((4, down * pitch, across * pitch), np.uint8)
    areas, discs, crs, size = [], [], None, 0.0
    for place, (_, name) in enumerate(known):
        row, col = place // across * pitch, place % across * pitch
        with rasterio.open(TREES / "images" / f"{name}.tif") as photograph:
            pixels[:, row : row + PHOTOGRAPH, col : col + PHOTOGRAPH] = photograph.read()
            bounds, crs, size = photograph.bounds, photograph.crs, photograph.res[0]
        # The raster's upper left corner is 0, 0.
        areas.append(box(col * size, -(row + PHOTOGRAPH) * size, (col + PHOTOGRAPH) * size, -row * size))
        file = TREES / "json" / f"{name}.json"
        points = json.loads(file.read_text())["features"] if file.exists() else []
        circles = (Point(each["geometry"]["coordinates"][:2]).buffer(CROWN_M) for each in points)
        discs += [translate(circle, col * size - bounds.left, -row * size - bounds.top) for circle in circles]
    bands = dict(zip(("red", "green", "blue", "NIR"), pixels))
    layer = folder / "tree.gpkg"
    geopandas.GeoDataFrame(geometry=discs, crs=crs).to_file(layer)
    print(f"Trees: {len(known)} photographs, {len(discs)} tree points, discs of {CROWN_M:g} m.")
    return {
        "path": write_raster(
            folder / "photographs.tif", bands, from_origin(0, 0, size, size), crs, photometric="minisblack"
        ),
        "label_features": jobs.VectorSource(str(layer)),
        "background": True,
        "areas": write_areas(folder / "areas.gpkg", [role for role, _ in known], areas, crs),
    }


def study_trees(folder: Path) -> None:
    """Compare RGB with RGB and near infrared, and these with NDVI besides; print the table."""
    scene = tree_scene(folder)
    path = scene.pop("path")
    variants = [
        Variant("rgb", jobs.RasterSource(path, bands=(1, 2, 3))),
        Variant("rgb_nir", jobs.RasterSource(path)),
        Variant("rgb_nir_ndvi", jobs.RasterSource(path, expressions="NDVI = (NIR - red) / (NIR + red)")),
    ]
    models = [trained(variant, folder, **scene, **TREE_SETTINGS) for variant in variants]
    numbers = (("kappa", "", "kappa"), ("iou", "1", "IoU of trees"), ("f1", "1", "F1 of trees"))
    for base, others in zip(models, models[1:]):
        rows = compared(base, others, folder)
        first, other = groups(rows)
        for metric, value, title in numbers:
            plain, more = number(rows, first, metric, value), number(rows, other, metric, value)
            told = (
                f"{title}: {first} {level(plain)}; {other} {level(more)}, difference {float(more['difference']):+.3f}"
            )
            print(f"{told}, standard error {float(more['standard_error']):.3f}: {more['verdict']}", flush=True)


def level(row: Dict[str, str]) -> str:
    """Return mean and deviation over the seeds."""
    return f"{float(row['mean']):.3f} +- {float(row['deviation']):.3f}"


# --- LiDAR -----------------------------------------------------------------------------------------------------------


def survey() -> Dict[str, Any]:
    """Return x, y, z, intensity and class of all points, each once."""
    import laspy

    found = []
    for file in sorted(LIDAR.glob("*.laz")):
        points = laspy.read(file)
        found.append(np.stack([points.x, points.y, points.z, points.intensity, points.classification]))
    return dict(zip(("x", "y", "z", "intensity", "class"), np.concatenate(found, axis=1)))


@dataclass(frozen=True, eq=False)
class Cells:
    """The points of a survey by cells of a grid whose upper left corner is ``left``, ``top``."""

    points: Dict[str, Any]
    left: float
    top: float
    shape: Tuple[int, int]

    def at(self, wanted: Any) -> Any:
        """Return the number of the cell of the points that are wanted."""
        rows = ((self.top - self.points["y"][wanted]) / CELL_M).astype(int).clip(0, self.shape[0] - 1)
        cols = ((self.points["x"][wanted] - self.left) / CELL_M).astype(int).clip(0, self.shape[1] - 1)
        return rows * self.shape[1] + cols

    def mean(self, name: str, wanted: Any) -> Any:
        """Return the mean of an attribute ``(H, W)``, NaN where there is no point."""
        cells, size = self.at(wanted), self.shape[0] * self.shape[1]
        count = np.bincount(cells, minlength=size)
        total = np.bincount(cells, self.points[name][wanted], minlength=size)
        return np.divide(total, count, out=np.full(size, np.nan), where=count > 0).reshape(self.shape)

    def highest(self) -> Any:
        """Return the highest point's height ``(H, W)``, NaN where there is none."""
        found = np.full(self.shape[0] * self.shape[1], -np.inf)
        np.maximum.at(found, self.at(slice(None)), self.points["z"])
        return np.where(np.isinf(found), np.nan, found).reshape(self.shape)

    def ground(self) -> Any:
        """Return the height of the ground ``(H, W)``: linear between cells with ground points, else the nearest."""
        known = self.mean("z", self.points["class"] == 2)
        there, here = np.argwhere(~np.isnan(known)), np.argwhere(np.isnan(known))
        for method in ("linear", "nearest"):
            empty = np.isnan(known[tuple(here.T)])
            at = here[empty]
            known[tuple(at.T)] = scipy.interpolate.griddata(there, known[tuple(there.T)], at, method)
        return known

    def majority(self) -> Any:
        """Return the class that most points have, among those of `CLASSES`, 0 where there is none ``(H, W)``."""
        size = self.shape[0] * self.shape[1]
        votes = [np.bincount(self.at(self.points["class"] == entry.value), minlength=size) for entry in CLASSES]
        best = np.array([entry.value for entry in CLASSES], np.uint8)[np.argmax(votes, axis=0)]
        return np.where(np.any(votes, axis=0), best, 0).astype(np.uint8).reshape(self.shape)


def lidar_scene(folder: Path) -> Tuple[Dict[str, str], List[Any]]:
    """Write the rasters of the survey; returns their paths by name, and the columns of tiles."""
    points = survey()
    left, low = (float(TILE_M * np.floor(points[axis].min() / TILE_M)) for axis in "xy")
    across, down = (
        round(float(np.ceil((points[axis].max() - start) / TILE_M - 1e-6))) for axis, start in (("x", left), ("y", low))
    )
    top, tile = low + down * TILE_M, round(TILE_M / CELL_M)
    cells = Cells(points, left, top, (down * tile, across * tile))
    surface = cells.highest()
    bands = {
        "intensity": cells.mean("intensity", slice(None)),
        "DSM": surface,
        "nDSM": surface - cells.ground(),
        "class": cells.majority(),
    }
    transform = from_origin(left, top, CELL_M, CELL_M)
    paths = {}
    for name, values in bands.items():
        values = values if name == "class" else values.astype(np.float32)
        nodata = 0 if name == "class" else np.nan
        paths[name] = write_raster(folder / f"{name}.tif", {name: values}, transform, "EPSG:2154", nodata=nodata)
    told = ", ".join(f"{entry.name} {(bands['class'] == entry.value).mean():.0%}" for entry in CLASSES)
    print(f"LiDAR: {len(points['x']):,} points, {down} x {across} tiles, cells of {CELL_M:g} m: {told}.")
    return paths, [box(x, low, x + TILE_M, top) for x in left + TILE_M * np.arange(across)]


def study_lidar(folder: Path) -> None:
    """Compare intensity with intensity and DSM, and with intensity and nDSM; print the table."""
    if importlib.util.find_spec("laspy") is None or importlib.util.find_spec("lazrs") is None:
        print("LiDAR: laspy and lazrs are not installed beside the engine: this study was not run.")
        return
    paths, columns = lidar_scene(folder)
    variants = [Variant("intensity", jobs.RasterSource(paths["intensity"]))]
    variants += [Variant(name, jobs.RasterSource(paths["intensity"], stack=(paths[name],))) for name in ("DSM", "nDSM")]
    numbers: Numbers = (("kappa", "", "kappa"), ("mean_iou", "", "mean IoU"))
    numbers = (*numbers, *(("iou", str(entry.value), f"IoU of {entry.name}") for entry in CLASSES))
    folds: List[List[Dict[str, str]]] = []
    for fold, column in enumerate(columns):
        place = folder / f"fold{fold}"
        place.mkdir(exist_ok=True)
        train = shapely.union_all([other for other in columns if other is not column])
        scored = column.difference(train.buffer(GUARD_M))
        data = {
            "labels": jobs.RasterSource(paths["class"]),
            "legend": Legend(layer_classes=CLASSES),
            "areas": write_areas(place / "areas.gpkg", ("train", "test"), (train, scored), "EPSG:2154"),
        }
        models = [trained(variant, place, **data, class_weights="balanced", **LIDAR_SETTINGS) for variant in variants]
        folds.append(compared(models[0], [path for some in models[1:] for path in some], place))
        told = "; ".join(f"{title} {number(folds[-1], title, 'kappa', '')['mean']}" for title in groups(folds[-1]))
        print(f"column {fold + 1}: kappa {told}", flush=True)
    first, *others = groups(folds[0])
    for metric, value, title in numbers:
        means = {
            name: [_known(number(rows, name, metric, value)["mean"]) for rows in folds] for name in [first, *others]
        }
        told = f"{title}: {first} {spoken_spread(spread(means[first]))}"
        for other in others:
            gain = difference(list(zip(means[first], means[other])))
            told += f"; {other} {spoken_spread(spread(means[other]))}, difference {gain.mean:+.3f}"
            told += f", standard error {gain.standard_error:.3f}: {gain.verdict}"
        print(told.replace("\u00a0±\u00a0", " +- "))


def _known(cell: str) -> Any:
    return float(cell) if cell else None


# --- both ------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the studies that were asked for."""
    studies: Dict[str, Tuple[Path, Callable[[Path], None]]] = {
        "trees": (TREES, study_trees), "lidar": (LIDAR, study_lidar),
    }  # fmt: skip
    asked = argparse.ArgumentParser()
    asked.add_argument("--study", choices=list(studies))
    asked.add_argument("--models", type=Path)
    given = asked.parse_args()
    for name, (data, study) in studies.items():
        if given.study not in (None, name):
            continue
        if not data.exists():
            print(f"The data folder {data} is not there: nothing was measured.")
            continue
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.models or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            study(folder)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
