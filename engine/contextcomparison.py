"""Does context help? Patches of several sizes at the same points, a Random Forest beside them, and a map of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Dict, List, Tuple

import numpy as np

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import (
    RANDOM_FOREST,
    Classify,
    DoesContextHelp,
    DoesContextHelpResult,
    ExtractPatches,
    TrainResult,
)
from . import reports
from .contextreport import MethodRuns, context_page, verdict
from .datasets import PatchDataset
from .edges import edge_errors
from .folders import filled_folder
from .inference import classify
from .pairing import FEWEST_SEEDS, listed_seeds, spoken_seeds, spoken_spread, spread
from .patches import extract_patches
from .resplitting import TEST, TRAIN, Candidates, Resplitter, Splits, split_apart
from .trials import Trial, train_once

# Progress of a step, in trainings.
_EXTRACTION, _MAPPING = 0.5, 1.0


@dataclass(frozen=True)
class Method:
    """What is trained on patches of a size; the files are called by ``name``."""

    name: str
    title: str
    network: str
    size: int
    features: str = "window"


def methods_of(sizes: Tuple[int, ...]) -> Tuple[Method, ...]:
    """Return what is trained: a network of each size, ascending, and a forest on the smallest neighbourhood."""
    found = [
        Method("pixel_network_1", "1 x 1 network", "pixel_network", 1)
        if size == 1
        else Method(f"compact_cnn_{size}", f"{size} x {size} CNN", "compact_cnn", size)
        for size in sizes
    ]
    size = next(size for size in sizes if size > 1)
    title = f"{size} x {size} Random Forest"
    return (*found, Method(f"random_forest_{size}", title, RANDOM_FOREST, size))


class _Progress:
    """Hands out the steps of the job."""

    def __init__(self, context: Context, whole: float) -> None:
        self.context, self.done, self.whole = context, 0.0, whole

    def step(self, name: str, weight: float) -> Trial:
        trial = Trial(self.context, name, self.done, weight, self.whole)
        self.done += weight
        return trial


def does_context_help(job: DoesContextHelp, context: Context) -> DoesContextHelpResult:
    """Train on patches of several sizes at the same points with the same split, map with each, and report.

    Points whose largest patch does not fit are left out of all sizes. The split is that of the points' field, else
    whole polygons or blocks, with the largest patch as guard.

    Raises:
        BadInput: image or points cannot be used, no largest patch fits, or a part is empty.
        DiskFull: no room left.
    """
    sizes = tuple(sorted(set(job.sizes)))
    methods = methods_of(sizes)
    weights = _EXTRACTION * len(sizes) + (job.seeds + _MAPPING) * len(methods)
    progress = _Progress(context, weights)
    folders, largest, splits = _prepare(job, sizes, progress, context)
    with filled_folder(job.output_folder) as part:
        runs = [_trained(job, method, folders[method.size], part, progress, context) for method in methods]
        maps = [_mapped(job, method, part, progress) for method in methods]
        test = splits == TEST
        transform = largest.description.scene.transform
        errors = edge_errors(maps, transform, largest.rows[test], largest.cols[test], largest.labels[test], context)
        found = [
            MethodRuns(method.title, method.network == RANDOM_FOREST, results, edges)
            for method, results, edges in zip(methods, runs, errors)
        ]
        if job.seeds < FEWEST_SEEDS:
            context.warn(
                f"{FEWEST_SEEDS} SEEDS or more tell how much of a difference is chance; {job.seeds} was asked for."
            )
        context.log(verdict(found))
        classes = largest.description.classes
        facts = _facts(job, splits, sizes)
        page = context_page(
            largest.description.scene.label, facts, found, maps, job.source, classes, tuple(context.warnings)
        )
    report = reports.write_page(job.report, page) if job.report else ""
    names = tuple(os.path.join(job.output_folder, os.path.basename(path)) for path in maps)
    return DoesContextHelpResult(job.output_folder, report, names, classes, warnings=tuple(context.warnings))


# --- patches ---------------------------------------------------------------------------------------------------------


def _prepare(
    job: DoesContextHelp, sizes: Tuple[int, ...], progress: _Progress, context: Context
) -> Tuple[Dict[int, str], PatchDataset, Splits]:
    """Cut the patches of every size; returns the datasets' folders, the largest one, and its splits."""
    cut: Dict[int, Resplitter] = {}
    for size in reversed(sizes):
        folder = context.scratch(f"patches_{size}")
        extraction = ExtractPatches(
            job.source, job.samples, job.field, folder, patch_size=size, legend=job.legend, nodata_rule="auto"
        )
        result = extract_patches(extraction, progress.step(f"Patches of {size} x {size}", _EXTRACTION))
        cut[size] = Resplitter(PatchDataset(folder))
        if size == sizes[-1] and result.rejected:
            context.warn(
                f"{result.rejected} of {result.rejected + result.accepted} points are left out of all sizes: their "
                f"patches of {size} x {size} pixels reach over the edge, or hold no-data."
            )
    largest = cut[sizes[-1]]
    splits = _splits(job, largest.dataset, context)
    folders = {}
    for size, resplitter in cut.items():
        own: Splits = np.full(len(resplitter.dataset), "", dtype=object)
        common = np.isin(resplitter.candidates, largest.candidates)
        # Both are in the order of the points.
        own[common] = splits
        folders[size] = resplitter.write(context.scratch(f"split_{size}"), own, context)
    return folders, largest.dataset, splits


def _splits(job: DoesContextHelp, dataset: PatchDataset, context: Context) -> Splits:
    """Return the part of each patch: that of its point, or one that is cut here."""
    own = dataset.splits
    if np.any(own == TEST) and np.any(own == TRAIN):
        context.log("The points' own split is used; those for validation are left out.")
        return np.where(np.isin(own, (TRAIN, TEST)), own, "").astype(object)
    patches = Candidates.of(dataset)
    splits = split_apart(patches, job.test_share, 0, context)
    left = int(np.sum(splits == ""))
    what = "whole polygons" if patches.know_polygons() else "blocks"
    context.log(
        f"The points have no split into train and test: {what} are the test part; {left} points that lie within a "
        "patch of it are left out."
    )
    for value in np.unique(dataset.labels):
        parts = splits[dataset.labels == value]
        for part, use in ((TRAIN, "train on"), (TEST, "judge it by")):
            if not np.any(parts == part):
                context.warn(f"Class {value} has no point to {use}: label more places of it, further apart.")
    if not np.any(splits == TEST) or not np.any(splits == TRAIN):
        raise BadInput(
            "The points give no training and test part: they lie too close together.",
            "Label more polygons further apart, or give the points a field split with 'Split samples'.",
        )
    return splits


# --- training and mapping --------------------------------------------------------------------------------------------


def _trained(
    job: DoesContextHelp, method: Method, folder: str, part: str, progress: _Progress, context: Context
) -> Tuple[TrainResult, ...]:
    """Train a method with every seed; the model of the first seed is kept."""
    results: List[TrainResult] = []
    for seed in range(job.seeds):
        name = f"{method.name}.safetensors"
        output = os.path.join(part, name) if seed == 0 else context.scratch(f"{seed}_{name}")
        step = progress.step(f"{method.title}, seed {seed}", 1.0)
        results.append(
            train_once(method.network, folder, output, seed, step, epochs=job.epochs, device=job.device_choice)
        )
    kappa = spoken_spread(spread([result.kappa for result in results]))
    context.log(f"{method.title}: kappa {kappa} over {spoken_seeds(job.seeds)}.")
    return tuple(results)


def _mapped(job: DoesContextHelp, method: Method, part: str, progress: _Progress) -> str:
    """Map with a method's kept model; returns the map."""
    path = os.path.join(part, f"{method.name}.tif")
    mapping = Classify(
        # The model computes its computed bands itself.
        replace(job.source, expressions=""),
        os.path.join(part, f"{method.name}.safetensors"),
        path,
        extent=job.extent,
        device_choice=job.device_choice,
        resume=False,
    )
    return classify(mapping, progress.step(f"Map by {method.title}", _MAPPING)).output


def _facts(job: DoesContextHelp, splits: Splits, sizes: Tuple[int, ...]) -> List[Tuple[str, str]]:
    left = int(np.sum(splits == ""))
    return [
        ("Patch sizes", ", ".join(f"{size} x {size}" for size in sizes)),
        ("Points", f"{int(np.sum(splits == TRAIN))} train, {int(np.sum(splits == TEST))} test, {left} left out"),
        ("Methods", "Pixel network (1 x 1), Compact CNN, Random Forest on pixel, mean and deviation of the patch"),
        ("Seeds", f"{listed_seeds(job.seeds)}, of the training; the maps are of seed 0"),
        ("Epochs", f"{job.epochs}, the last one is kept"),
    ]
