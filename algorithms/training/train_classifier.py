"""Train a network that gives one class per patch."""

from __future__ import annotations

from ...models.registry import PATCH_NETWORKS
from ...tasks import jobs
from .. import parameters as p
from ..translate import tr
from .base import Trainer


class TrainClassifier(Trainer):
    """trainclassifier."""

    NETWORK = "NETWORK"
    EPOCHS = "EPOCHS"
    BATCH_SIZE = "BATCH_SIZE"
    LEARNING_RATE = "LEARNING_RATE"
    CLASS_WEIGHTS = "CLASS_WEIGHTS"
    AUGMENTATION = "AUGMENTATION"
    PATIENCE = "PATIENCE"
    MONITOR = "MONITOR"
    DEVICE = "DEVICE"

    CURVES = True
    SUMMARY = (
        "Trains a network on a patch dataset: one class per patch, that of its centre. The best epoch on the "
        "validation patches is kept; the accuracy comes from the test patches where there are any."
    )

    def name(self):
        return "trainclassifier"

    def displayName(self):
        return tr("Train a classifier")

    def initAlgorithm(self, configuration=None):
        networks = " ".join(f"{entry.id}: {tr(entry.title)}. {tr(entry.help)}" for entry in PATCH_NETWORKS)
        self.add_parameters(
            self.datasets(),
            self.scenes(),
            p.choice(self.NETWORK, tr("Network"), networks, [entry.id for entry in PATCH_NETWORKS]),
            p.integer(self.EPOCHS, tr("Epochs"), tr("How often all patches are seen, at most."), default=50, minimum=1),
            p.integer(
                self.PATIENCE,
                tr("Patience"),
                tr("Epochs without progress after which training stops. 0: no early stopping, the last epoch is kept."),
                default=10,
                minimum=0,
            ),
            p.integer(
                self.BATCH_SIZE, tr("Batch size"), tr("Patches per step. Unset: automatic."), minimum=1, advanced=True
            ),
            p.real(
                self.LEARNING_RATE,
                tr("Learning rate"),
                tr("Size of a step. Unset: the network's own."),
                minimum=0,
                advanced=True,
            ),
            p.choice(
                self.CLASS_WEIGHTS,
                tr("Class weights"),
                tr("balanced: rare classes count as much as frequent ones. none: every patch counts the same."),
                jobs.CLASS_WEIGHTS,
                advanced=True,
            ),
            p.choice(
                self.AUGMENTATION,
                tr("Augmentation"),
                tr("flips: patches are also seen mirrored. full: mirrored and turned, with noise. none: as they are."),
                jobs.AUGMENTATIONS,
                advanced=True,
            ),
            p.choice(
                self.MONITOR,
                tr("Monitor"),
                tr("The number on the validation patches by which the best epoch is chosen."),
                jobs.MONITORS,
                advanced=True,
            ),
            self.initial_model(),
            p.seed(),
            p.device(),
            self.results(),
        )
        self.add_numbers()

    def job(self, values):
        return jobs.TrainClassifier(
            training=values.path(self.TRAINING),
            output=values.output(self.OUTPUT),
            validation=values.path(self.VALIDATION),
            test=values.path(self.TEST),
            validation_share=values.real(self.VALIDATION_SHARE),
            network=values.choice(self.NETWORK),
            epochs=values.integer(self.EPOCHS),
            batch_size=values.optional_integer(self.BATCH_SIZE),
            learning_rate=values.optional_real(self.LEARNING_RATE),
            class_weights=values.choice(self.CLASS_WEIGHTS),
            augmentation=values.choice(self.AUGMENTATION),
            patience=values.integer(self.PATIENCE),
            monitor=values.choice(self.MONITOR),
            initial_model=values.path(self.INITIAL_MODEL),
            seed=values.integer(self.SEED),
            device_choice=values.choice(self.DEVICE),
            report=values.output(self.REPORT),
            **self.scene_values(values),
        )
