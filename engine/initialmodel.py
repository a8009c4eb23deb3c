"""INITIAL_MODEL: a model that is trained further, with its own standardisation."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Tuple, Union

from torch import nn

from ..models.cards import Card, CardSource
from ..tasks.classtable import ClassEntry, other_names, taken_for_one
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import TrainClassifier, TrainSegmenter
from .modelfiles import LoadedModel

_SAME_CLASSES = (
    "Give the new samples or labels the LEGEND of those that the model learned from, so that a name has one number, or "
    "train without INITIAL_MODEL."
)


def continued(
    initial: LoadedModel, job: Union[TrainClassifier, TrainSegmenter], ours: CardSource,
    classes: Tuple[ClassEntry, ...], context: Context,
) -> Tuple[Card, nn.Module]:  # fmt: skip
    """Return card (so far) and network of a model that is trained further.

    Its bands keep the means and deviations that it was trained with; what the preflight compares is the new scene's.

    Args:
        initial: the model, whose network is the one that is trained.
        job: names its file and the network's id.
        ours: what the card would say of the new training patches.
        classes: of the new training.
        context: for the log.

    Raises:
        BadInput: it is no network, or one of another kind, with other bands, patches or classes.
    """
    card, theirs = initial.card, initial.card.sources[0]
    remedy = "Choose a model that was trained on the same kind of patches, or train without INITIAL_MODEL."
    found = [
        ("network", card.network, job.network),
        ("number of bands", len(theirs.bands), len(ours.bands)),
        ("list of classes", [e.value for e in card.classes], [e.value for e in classes]),
    ]
    if card.output == "patch":  # the others take windows of any size
        found.insert(2, ("patch size", theirs.patch_size, ours.patch_size))
    for what, own, wanted in found:
        if own != wanted:
            raise BadInput(f"The {what} of INITIAL_MODEL is {own}, that of this training {wanted}.", remedy)
    file = os.path.basename(job.initial_model)
    known = {entry.value: (entry, f"'{file}'") for entry in card.classes}
    for entry in other_names(known, classes, "this training", _SAME_CLASSES):
        context.warn(taken_for_one((entry, "this training"), *known[entry.value]))
    if initial.module is None:
        raise BadInput(f"INITIAL_MODEL '{job.initial_model}' is no network.", remedy)
    names = [(a.name, b.name) for a, b in zip(theirs.bands, ours.bands) if a.name and b.name and a.name != b.name]
    if names:
        context.warn(f"Band '{names[0][1]}' takes the place of '{names[0][0]}' of INITIAL_MODEL.")
    context.log(f"Training goes on from '{file}', with its standardisation.")
    bands = tuple(
        replace(band, scene_mean=new.scene_mean, scene_std=new.scene_std, nodata=new.nodata)
        for band, new in zip(theirs.bands, ours.bands)
    )
    source = replace(theirs, bands=bands, patch_size=ours.patch_size)
    return replace(card, sources=(source,), classes=classes, settings={}, metrics={}), initial.module
