"""Is my accuracy real? The same patches, split at random, by polygon, and by block with a guard."""

from __future__ import annotations

from typing import Callable, Dict, List

import numpy as np

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RANDOM_FOREST, IsMyAccuracyReal, IsMyAccuracyRealResult
from . import reports
from .pairing import FEWEST_SEEDS, listed_seeds, spoken_seeds, spoken_spread
from .patchpools import open_dataset
from .resplitting import (
    TEST,
    TRAIN,
    Candidates,
    Resplitter,
    Splits,
    block_side,
    split_at_random,
    split_by_blocks,
    split_by_polygons,
)
from .splitreport import SplitRuns, split_page, verdict
from .trials import Trial, title_of, train_once

_Rule = Callable[[int], Splits]


def is_my_accuracy_real(job: IsMyAccuracyReal, context: Context) -> IsMyAccuracyRealResult:
    """Train with the same patches split in three ways, several seeds each, and report how the accuracies differ.

    Raises:
        BadInput: the dataset cannot be used, its patches do not know their place or polygon, or it holds one class.
        DiskFull: no room left.
    """
    dataset = open_dataset(job.training)
    patches = Candidates.of(dataset)
    name = dataset.folder.name
    if not patches.know_polygons():
        raise BadInput(
            f"The patches of '{name}' do not know their polygons, or all are of one.",
            "Select the samples with 'Select samples from polygons', which keeps the polygon in the field originfid, "
            "and extract the patches again.",
        )
    if np.any(dataset.splits != ""):
        context.log(f"The patches of '{name}' have a split of their own: it is not used here.")
    share, resplitter = job.test_share, Resplitter(dataset)
    rules: Dict[str, _Rule] = {
        "random": lambda seed: split_at_random(patches, share, seed),
        "polygon": lambda seed: split_by_polygons(patches, share, seed, context),
        "block": lambda seed: split_by_blocks(patches, share, seed, context),
    }
    whole = float(len(rules) * job.seeds)
    ways: List[SplitRuns] = []
    for way, rule in rules.items():
        results, counts = [], []
        for seed in range(job.seeds):
            done = float(len(ways) * job.seeds + seed)
            splits = rule(seed)
            _check(splits, way, seed, patches, context)
            folder = resplitter.write(context.scratch(f"{way}_{seed}"), splits, context)
            trial = Trial(context, f"Split {way}, seed {seed}", done, 1.0, whole)
            results.append(
                train_once(
                    job.network, folder, context.scratch(f"{way}_{seed}.safetensors"), seed, trial,
                    epochs=job.epochs, device=job.device_choice,
                )
            )  # fmt: skip
            counts.append((int(np.sum(splits == TRAIN)), int(np.sum(splits == TEST))))
        ways.append(SplitRuns(way, tuple(results), tuple(counts)))
        context.log(
            f"Split {ways[-1].title}: kappa {spoken_spread(ways[-1].spread('kappa'))} over {spoken_seeds(job.seeds)}, "
            f"{ways[-1].shared_pixels:,.0f} pixels shared between training and test patches."
        )
    if job.seeds < FEWEST_SEEDS:
        context.warn(
            f"{FEWEST_SEEDS} SEEDS or more tell how much of a difference is chance; {job.seeds} was asked for."
        )
    context.log(verdict(ways))
    size = dataset.description.sources[0].patch_size
    facts = [
        ("Method", title_of(job.network)),
        ("Patches", f"{len(dataset)} of {size} x {size} pixels from {len(np.unique(patches.groups))} polygons"),
        ("Test share", f"{share:g}"),
        ("Blocks", f"{block_side(patches)} x {block_side(patches)} pixels, guard {size} pixels"),
        ("Seeds", f"{listed_seeds(job.seeds)}: of the split and of the training"),
        *([] if job.network == RANDOM_FOREST else [("Epochs", f"{job.epochs}, the last one is kept")]),
    ]
    page = split_page(title_of(job.network), name, facts, ways, share, context.warnings)
    report = reports.write_page(job.report, page) if job.report else ""
    random, polygon, block = (way.spread("kappa").mean for way in ways)
    return IsMyAccuracyRealResult(report, random, polygon, block, warnings=tuple(context.warnings))


def _check(splits: Splits, way: str, seed: int, patches: Candidates, context: Context) -> None:
    """Warn of classes that a split cannot train or judge, and raise where it has no part to judge by."""
    if not np.any(splits == TEST) or not np.any(splits == TRAIN):
        raise BadInput(
            f"Split by {way}, the patches give no training and test part: they lie too close together.",
            "Label more polygons, further apart.",
        )
    for value in np.unique(patches.labels):
        own = splits[patches.labels == value]
        for part, what in ((TRAIN, "train on"), (TEST, "judge it by")):
            if not np.any(own == part):
                context.warn(
                    f"Split by {way} (seed {seed}), class {value} has no patch to {what}: the numbers of that split "
                    "say less. Label more polygons of this class, further apart."
                )
