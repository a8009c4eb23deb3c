"""The settings of a training: what the job says, else its recipe, else what follows from network and data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..models.cards import Card
from ..models.recipes import PRESETS, Preset
from ..models.registry import PIXEL_NETWORKS, network_entry
from ..tasks.jobs import TrainSegmenter
from .optimising import OptimiserSettings

# Windows of a step where neither job, recipe nor network say: at least two and so many that they hold so many pixels;
# twice as many as long as an epoch has more steps than that. Of a short training many small steps make more.
_BATCH_PIXELS = 65_536
_SMALLEST_BATCH, _LARGEST_BATCH = 2, 32
_MOST_STEPS = 300
_RATE = 2e-3
_OTHER_RATES = {"adam": 1e-3, "sgd": 1e-2, "muon": 2e-2}
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Settings:
    """How a network is trained, all chosen; goes into the card.

    Attributes:
        recipe: name of the preset.
        loss: losses joined by +.
        binary: the network has one logit for two classes.
        optimising: optimiser and schedule.
        epochs: at most.
        batch_size: windows of a step, over all devices.
        patience: epochs without progress after which training ends; 0 = none, the last epoch is kept.
        monitor: loss, kappa, macro_f1 or mean_iou.
        augmentation: none, flips or full.
        class_weights: balanced or none.
        seed: of the job.
        smallest_batch: windows that a step must have.
        rim: outermost pixels of a window whose targets are ignored: the network cannot know them.
    """

    recipe: str
    loss: str
    binary: bool
    optimising: OptimiserSettings
    epochs: int
    batch_size: int
    patience: int
    monitor: str
    augmentation: str
    class_weights: str
    seed: int
    smallest_batch: int = 1
    rim: int = 0

    def facts(self) -> Dict[str, Any]:
        """Return them as plain values for the card."""
        plain = dataclasses.asdict(self)
        return {**plain.pop("optimising"), **plain}


def recipe_of(job: TrainSegmenter) -> Preset:
    """Return the recipe of a job."""
    return PRESETS[job.recipe]


def choose_settings(job: TrainSegmenter, card: Card, windows: int) -> Settings:
    """Return the settings of a job whose epochs have so many windows.

    The automatic batch size is a function of network and data alone, so that a run repeats on another machine; where a
    GPU has no room for it, its parts follow each other.
    """
    preset, entry = recipe_of(job), network_entry(card.network, PIXEL_NETWORKS)
    own = dict(entry.recipe) if job.recipe == "default" else {}
    usual = own.get("optimizer", preset.optimizer)
    optimizer = usual if job.optimizer == "auto" else job.optimizer
    rate = job.learning_rate or (None if optimizer != usual else preset.learning_rate or own.get("learning_rate"))
    momentum = preset.momentum or (_MOMENTUM if optimizer == "sgd" else 0.0)
    return Settings(
        recipe=job.recipe,
        loss=job.loss or preset.loss,
        binary=card.binary,
        optimising=OptimiserSettings(
            optimizer=optimizer,
            schedule=preset.schedule,
            learning_rate=rate or _OTHER_RATES.get(optimizer, _RATE),
            weight_decay=own.get("weight_decay", preset.weight_decay),
            momentum=momentum,
            factor=preset.factor,
            plateau=preset.plateau,
            steps=preset.steps,
            warm_up=preset.warm_up,
            averaging=own.get("averaging", preset.averaging),
        ),
        epochs=job.epochs or preset.epochs,
        batch_size=max(
            entry.smallest_batch, job.batch_size or preset.batch_size or _batch_of(card, windows, own.get("batch_size"))
        ),
        patience=preset.patience if job.patience is None else job.patience,
        monitor=job.monitor or preset.monitor,
        augmentation=job.augmentation,
        class_weights=preset.class_weights if job.class_weights == "auto" else job.class_weights,
        seed=job.seed,
        smallest_batch=entry.smallest_batch,
        rim=entry.rim,
    )


def _batch_of(card: Card, windows: int, own: Optional[int]) -> int:
    batch = own or max(_SMALLEST_BATCH, round(_BATCH_PIXELS / card.sources[0].patch_size ** 2))
    while windows / batch > _MOST_STEPS and 2 * batch <= _LARGEST_BATCH:
        batch *= 2
    return min(batch, _LARGEST_BATCH)
