"""What an accuracy is worth: the same patches split in three ways."""

from __future__ import annotations

from ...models.registry import PATCH_NETWORKS
from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class IsMyAccuracyReal(JobAlgorithm):
    """ismyaccuracyreal."""

    TRAINING = "TRAINING"
    NETWORK = "NETWORK"
    EPOCHS = "EPOCHS"
    SEEDS = "SEEDS"
    TEST_SHARE = "TEST_SHARE"
    DEVICE = "DEVICE"
    REPORT = "REPORT"
    RANDOM_KAPPA = "RANDOM_KAPPA"
    POLYGON_KAPPA = "POLYGON_KAPPA"
    BLOCK_KAPPA = "BLOCK_KAPPA"

    STEP = "workflows"
    SUMMARY = (
        "Trains with the same patches split into training and test at random, by polygon, and by block with a guard, "
        "several seeds each. Neighbouring pixels look alike: split at random, a test says how well a model remembers, "
        "not how well it maps a place that it has never seen. The report says how far the accuracies are apart."
    )

    def name(self):
        return "ismyaccuracyreal"

    def displayName(self):
        return tr("Is my accuracy real?")

    def initAlgorithm(self, configuration=None):
        networks = [entry.id for entry in PATCH_NETWORKS]
        self.add_parameters(
            p.folder(
                self.TRAINING,
                tr("Patch dataset"),
                tr(
                    "Folder made by 'Extract patches' of points that 'Select samples from polygons' selected: patches "
                    "that know their place and polygon. A split of their own is not used."
                ),
            ),
            p.choice(
                self.NETWORK,
                tr("Network"),
                tr("What is trained: a network of 'Train a classifier', or a Random Forest on the patch (window)."),
                [*networks, jobs.RANDOM_FOREST],
            ),
            p.integer(
                self.EPOCHS,
                tr("Epochs"),
                tr("How often a network sees all patches; the last epoch is kept. Not used by the Random Forest."),
                default=30,
                minimum=1,
            ),
            p.integer(
                self.SEEDS,
                tr("Seeds"),
                tr("How often each split is made and trained anew; three or more tell what is chance."),
                default=3,
                minimum=1,
            ),
            p.real(
                self.TEST_SHARE,
                tr("Test share"),
                tr("Part of the patches of each class that is kept for the test, the same in all splits."),
                default=0.3,
                minimum=0,
                maximum=1,
                advanced=True,
            ),
            p.device(),
            p.file_output(
                self.REPORT,
                tr("Report"),
                tr("A page with the accuracy of each split, the pixels that both parts share, and what follows."),
                "HTML (*.html)",
            ),
        )
        self.add_number(self.RANDOM_KAPPA, tr("Kappa at random"), tr("Mean over the seeds, patches split at random."))
        self.add_number(self.POLYGON_KAPPA, tr("Kappa by polygon"), tr("Mean over the seeds, whole polygons split."))
        self.add_number(
            self.BLOCK_KAPPA, tr("Kappa by block"), tr("Mean over the seeds, whole blocks split, with a guard.")
        )

    def job(self, values):
        return jobs.IsMyAccuracyReal(
            training=values.path(self.TRAINING),
            report=values.output(self.REPORT),
            network=values.choice(self.NETWORK),
            epochs=values.integer(self.EPOCHS),
            seeds=values.integer(self.SEEDS),
            test_share=values.real(self.TEST_SHARE),
            device_choice=values.choice(self.DEVICE),
        )
