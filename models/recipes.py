"""Recipes of segmentation: named settings that come from somewhere. Standard library only: lists and help read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class Preset:
    """The settings of a recipe; what is None follows from network and data.

    Attributes:
        loss: losses joined by +.
        optimizer: adamw, adam, sgd or muon.
        schedule: onecycle (rise and fall along a cosine), plateau (x ``factor`` after ``plateau`` epochs without a
            better validation loss), steps (x ``factor`` after the epochs ``steps``), cosine (a fall alone) or constant.
        learning_rate: the highest.
        weight_decay: of weights that are no biases or scales with adamw and muon, of all weights otherwise.
        momentum: of sgd.
        epochs: at most.
        batch_size: windows per step.
        patience: epochs without progress after which training ends; 0 = all epochs, the last one is kept.
        monitor: the number on the validation part that the best epoch is chosen by.
        windows: of an epoch.
        class_weights: balanced or none.
        factor: see schedule.
        plateau: see schedule.
        steps: see schedule.
        warm_up: share of the steps in which the rate rises (onecycle).
        averaging: share of the steps after which a step weighs 1/e of the latest in the mean of the weights, which is
            what is evaluated and kept; 0 = the weights of the latest step themselves.
        source: where the recipe comes from.
    """

    loss: str = "cross_entropy+dice"
    optimizer: str = "adamw"
    schedule: str = "onecycle"
    learning_rate: Optional[float] = None
    weight_decay: float = 1e-2
    momentum: float = 0.0
    epochs: int = 50
    batch_size: Optional[int] = None
    patience: int = 10
    monitor: str = "loss"
    windows: Optional[int] = None
    class_weights: str = "none"
    factor: float = 0.1
    plateau: int = 5
    steps: Tuple[int, ...] = ()
    warm_up: float = 0.3
    averaging: float = 0.0
    source: str = "Deepscape"


PRESETS: Dict[str, Preset] = {
    "default": Preset(),
    "otbtf": Preset(
        loss="cross_entropy", optimizer="adam", schedule="constant", learning_rate=2e-4, weight_decay=0.0, epochs=100,
        batch_size=100, patience=0, warm_up=0.0,
        source="R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software (2020)",
    ),
    "course": Preset(
        loss="cross_entropy", optimizer="adam", schedule="plateau", learning_rate=1e-4, weight_decay=0.0,
        epochs=100, batch_size=64, patience=10, windows=1200, factor=0.1, plateau=5, warm_up=0.0,
        source="U-Net course on the Vaihingen orthophotos",
    ),
    "notebook": Preset(
        loss="cross_entropy", optimizer="sgd", schedule="steps", learning_rate=0.01, weight_decay=5e-4, momentum=0.9,
        epochs=50, batch_size=10, patience=0, windows=10_000, factor=0.1, steps=(25, 35, 45), warm_up=0.0,
        source="SegNet notebook: N. Audebert, B. Le Saux, S. Lefevre, Beyond RGB (2017)",
    ),
}  # fmt: skip
