"""What all trainers share: the datasets, the outputs, and the numbers that designer models chain on."""

from __future__ import annotations

from typing import Any, List

from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class Trainer(JobAlgorithm):
    """Base of the trainers."""

    TRAINING = "TRAINING"
    VALIDATION = "VALIDATION"
    TEST = "TEST"
    VALIDATION_SHARE = "VALIDATION_SHARE"
    SEED = "SEED"
    OUTPUT = "OUTPUT"
    REPORT = "REPORT"
    OVERALL_ACCURACY = "OVERALL_ACCURACY"
    KAPPA = "KAPPA"
    MACRO_F1 = "MACRO_F1"
    MEAN_IOU = "MEAN_IOU"
    METRICS = "METRICS"
    BEST_EPOCH = "BEST_EPOCH"
    ACCURACY_SET = "ACCURACY_SET"

    STEP = "training"

    def datasets(self) -> List[Any]:
        """Return TRAINING, VALIDATION, TEST and VALIDATION_SHARE."""
        return [
            p.folder(self.TRAINING, tr("Patch dataset"), tr("Folder made by 'Extract patches': what is learned from.")),
            p.folder(
                self.VALIDATION,
                tr("Validation dataset"),
                tr("Patches that choose the best epoch. Empty: the dataset's own split, else the validation share."),
                optional=True,
            ),
            p.folder(
                self.TEST,
                tr("Test dataset"),
                tr("Patches that are used once, for the accuracy. Empty: the dataset's own test part, if it has one."),
                optional=True,
            ),
            p.real(
                self.VALIDATION_SHARE,
                tr("Validation share"),
                tr(
                    "Part of the patches that is kept for validation, by blocks, where there is neither a validation "
                    "dataset nor a split. 0: none."
                ),
                default=0.2,
                minimum=0,
                maximum=1,
            ),
        ]

    def results(self) -> List[Any]:
        """Return OUTPUT and REPORT."""
        return [
            p.file_output(
                self.OUTPUT,
                tr("Model"),
                tr("The trained model: one file with all that mapping needs to know."),
                p.MODEL_FILTER,
            ),
            p.report(tr("A page with the curves, the confusion matrix and the numbers of each class.")),
        ]

    def add_numbers(self) -> None:
        """Declare the numbers."""
        self.add_number(self.OVERALL_ACCURACY, tr("Overall accuracy"), tr("Share of patches that are right, 0 to 1."))
        self.add_number(self.KAPPA, tr("Kappa"), tr("Agreement beyond chance; empty where it is not defined."))
        self.add_number(self.MACRO_F1, tr("Macro F1"), tr("Mean of the F1 of all classes."))
        self.add_number(self.MEAN_IOU, tr("Mean IoU"), tr("Mean intersection over union of all classes."))
        self.add_string(self.METRICS, tr("Metrics"), tr("JSON: per class, and the confusion matrix."))
        self.add_number(self.BEST_EPOCH, tr("Best epoch"), tr("The epoch that was kept."))
        self.add_string(
            self.ACCURACY_SET,
            tr("Accuracy set"),
            tr("What the numbers were measured on: test, validation (optimistic) or none."),
        )
