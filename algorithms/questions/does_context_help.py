"""What a neighbourhood adds: patches of several sizes at the same points."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr

SIZES = (1, 5, 9, 16)


class DoesContextHelp(JobAlgorithm):
    """doescontexthelp."""

    INPUT = "INPUT"
    STACK = "STACK"
    BANDS = "BANDS"
    SAMPLES = "SAMPLES"
    FIELD = "FIELD"
    SIZES = "SIZES"
    EPOCHS = "EPOCHS"
    SEEDS = "SEEDS"
    TEST_SHARE = "TEST_SHARE"
    EXPRESSIONS = "EXPRESSIONS"
    NODATA = "NODATA"
    EXTENT = "EXTENT"
    DEVICE = "DEVICE"
    REPORT = "REPORT"
    OUTPUT_FOLDER = "OUTPUT_FOLDER"

    STEP = "workflows"
    SUMMARY = (
        "Trains on the pixel alone, on patches of several sizes at the same points, and a Random Forest beside them; "
        "maps the image with each. The report shows what the neighbourhood adds to the accuracy, what it costs at the "
        "borders of classes, and the maps side by side."
    )

    def name(self):
        return "doescontexthelp"

    def displayName(self):
        return tr("Does context help?")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster_source(tr("The image that the patches are cut from, and that is mapped.")),
            p.vector(
                self.SAMPLES,
                tr("Samples"),
                tr(
                    "Points with their class. A field split (train, test) of 'Split samples' is used; without one, "
                    "whole polygons or blocks become the test part, the largest patch apart from the others."
                ),
                compat.SOURCE_POINT,
            ),
            p.field(
                self.FIELD,
                tr("Class field"),
                tr("Field of the samples that holds the class, e.g. class_id."),
                "SAMPLES",
            ),
            p.text_value(
                self.SIZES,
                tr("Patch sizes in pixels"),
                tr(
                    "Sides of the patches, separated by commas: 1 (the pixel alone) and sizes of 5 or more. Points "
                    "whose largest patch does not fit are left out of all. Empty: 1, 5, 9, 16."
                ),
            ),
            p.integer(
                self.EPOCHS,
                tr("Epochs"),
                tr("How often a network sees all patches; the last epoch is kept."),
                default=30,
                minimum=1,
            ),
            p.integer(
                self.SEEDS,
                tr("Seeds"),
                tr("How often each is trained anew; three or more tell what is chance. The maps are of the first."),
                default=3,
                minimum=1,
            ),
            p.extent(),
            p.legend(),
            p.real(
                self.TEST_SHARE,
                tr("Test share"),
                tr("Part of the points that is kept for the test where they have no split."),
                default=0.3,
                minimum=0,
                maximum=1,
                advanced=True,
            ),
            p.expressions(),
            p.nodata(),
            p.device(),
            p.file_output(
                self.REPORT,
                tr("Report"),
                tr("A page with the accuracy by patch size, the error at borders and the maps side by side."),
                "HTML (*.html)",
            ),
            p.folder_output(
                self.OUTPUT_FOLDER, tr("Maps and models"), tr("Folder with a map and a model of each patch size.")
            ),
        )

    def job(self, values):
        return jobs.DoesContextHelp(
            source=values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA, expressions=self.EXPRESSIONS),
            samples=values.vector(self.SAMPLES),
            field=values.field(self.FIELD, self.SAMPLES),
            output_folder=values.output(self.OUTPUT_FOLDER),
            report=values.output(self.REPORT),
            sizes=values.integers(self.SIZES) or SIZES,
            epochs=values.integer(self.EPOCHS),
            seeds=values.integer(self.SEEDS),
            test_share=values.real(self.TEST_SHARE),
            extent=values.extent(self.EXTENT),
            legend=values.legend(self.SAMPLES, self.FIELD),
            device_choice=values.choice(self.DEVICE),
        )
