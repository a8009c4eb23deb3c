"""What all trainers share: the datasets, the outputs, and the numbers that designer models chain on."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class Trainer(JobAlgorithm):
    """Base of the trainers."""

    TRAINING = "TRAINING"
    VALIDATION = "VALIDATION"
    TEST = "TEST"
    VALIDATION_SHARE = "VALIDATION_SHARE"
    MORE_DATASETS = "MORE_DATASETS"
    SPLIT_BY = "SPLIT_BY"
    TEST_SCENES = "TEST_SCENES"
    CROSS_VALIDATION = "CROSS_VALIDATION"
    INITIAL_MODEL = "INITIAL_MODEL"
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

    def datasets(self, optional: bool = False) -> List[Any]:
        """Return TRAINING (optional where there are other ways to train), VALIDATION, TEST and VALIDATION_SHARE."""
        learned = tr("Folder made by 'Extract patches': what is learned from.")
        return [
            p.folder(self.TRAINING, tr("Patch dataset"), learned, optional=optional),
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
                    "Part of the patches that is kept for validation where there is neither a validation dataset nor a "
                    "split: whole polygons where the samples know theirs, else blocks. 0: none."
                ),
                default=0.2,
                minimum=0,
                maximum=1,
            ),
        ]

    def scenes(self) -> List[Any]:
        """Return MORE_DATASETS, SPLIT_BY, TEST_SCENES and CROSS_VALIDATION."""
        return [
            p.added(
                p.files(
                    self.MORE_DATASETS,
                    tr("More patch datasets"),
                    tr(
                        "Patch datasets of other scenes (the dataset.json in their folders) that are learned from too. "
                        "Same bands and patch size; their classes are united."
                    ),
                    optional=True,
                )
            ),
            p.added(
                p.choice(
                    self.SPLIT_BY,
                    tr("Split by"),
                    tr(
                        "own: each dataset's own split, else the validation share by polygons or blocks. scene: whole "
                        "scenes validate, the validation share of them, at least one of three or more."
                    ),
                    jobs.SPLITS_BY,
                    advanced=True,
                )
            ),
            p.added(
                p.text_value(
                    self.TEST_SCENES,
                    tr("Test scenes"),
                    tr(
                        "Scenes that the model never learns from and is judged on, separated by commas. A scene has "
                        "the name of the image that its patches were cut from; the log lists the names. Empty: none."
                    ),
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.CROSS_VALIDATION,
                    tr("Cross-validation"),
                    tr(
                        "scene: every scene is left out once, and a model of all the others is judged on it. This "
                        "tells how well a scene is mapped that was never seen. The model that is written then learns "
                        "from all scenes, by the same rule."
                    ),
                    jobs.CROSS_VALIDATIONS,
                    advanced=True,
                )
            ),
        ]

    def scene_values(self, values) -> Dict[str, Any]:
        """Return what these parameters say, by the names of the job's fields."""
        return {
            "more_datasets": values.files(self.MORE_DATASETS),
            "split_by": values.choice(self.SPLIT_BY),
            "test_scenes": self.test_scenes(values),
            "cross_validation": values.choice(self.CROSS_VALIDATION),
        }

    def test_scenes(self, values) -> Tuple[str, ...]:
        """Return the names in TEST_SCENES."""
        return tuple(filter(None, (name.strip() for name in values.text(self.TEST_SCENES).split(","))))

    def initial_model(self) -> Any:
        """Return INITIAL_MODEL, of the trainers of networks."""
        return p.model(
            self.INITIAL_MODEL,
            tr("Initial model"),
            tr("Continue from this model (same network, bands and classes). Empty: from scratch."),
            optional=True,
            advanced=True,
        )

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
        self.add_number(self.OVERALL_ACCURACY, tr("Overall accuracy"), tr("Share that is right, 0 to 1."))
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
