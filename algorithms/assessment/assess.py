"""Accuracy of a map."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class Assess(JobAlgorithm):
    """assess."""

    INPUT = "INPUT"
    REFERENCE = "REFERENCE"
    REFERENCE_SAMPLES = "REFERENCE_SAMPLES"
    FIELD = "FIELD"
    TRAINING = "TRAINING"
    OUTPUT = "OUTPUT"
    MATRIX = "MATRIX"
    CROSSWALK = "CROSSWALK"
    ERODE = "ERODE"
    DESIGN = "DESIGN"
    CLUSTER_FIELD = "CLUSTER_FIELD"
    BLOCK_SIZE = "BLOCK_SIZE"
    PROBABILITIES = "PROBABILITIES"
    AREAS = "AREAS"
    LEAVE_OUT_TRAINING = "LEAVE_OUT_TRAINING"
    BACKGROUND = "BACKGROUND"
    OVERALL_ACCURACY = "OVERALL_ACCURACY"
    KAPPA = "KAPPA"
    MACRO_F1 = "MACRO_F1"
    MEAN_IOU = "MEAN_IOU"
    SAMPLE_COUNT = "SAMPLE_COUNT"

    STEP = "assessment"
    SUMMARY = (
        "Compares a map with reference data that training has not seen: overall accuracy, kappa, producer's and user's "
        "accuracy of each class, and the confusion matrix."
    )

    def name(self):
        return "assess"

    def displayName(self):
        return tr("Assess a map")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(self.INPUT, tr("Map"), tr("Class raster made by 'Classify an image'.")),
            p.vector(
                self.REFERENCE_SAMPLES,
                tr("Reference samples"),
                tr("Points or polygons with their true class, in any CRS. Give these or a reference raster."),
                optional=True,
            ),
            p.field(
                self.FIELD,
                tr("Class field"),
                tr("Field of the reference samples that holds the class: its number or its name."),
                self.REFERENCE_SAMPLES,
                optional=True,
            ),
            p.raster(
                self.REFERENCE,
                tr("Reference raster"),
                tr(
                    "Raster of true classes. Give this or reference samples. On another grid than the map's it is "
                    "taken by nearest neighbour, or where its pixels are finer by a majority of 0.6."
                ),
                optional=True,
            ),
            p.folder(
                self.TRAINING,
                tr("Training dataset"),
                tr(
                    "The patch dataset of the map's model: reference pixels that its patches have seen are counted. "
                    "Empty: as the model tells, which the job file beside the map names."
                ),
                optional=True,
                advanced=True,
            ),
            p.file_output(
                self.OUTPUT,
                tr("Accuracy report"),
                tr("A page with the confusion matrix and the accuracy of each class."),
                "HTML (*.html)",
            ),
            p.file_output(
                self.MATRIX,
                tr("Confusion matrix"),
                tr("The confusion matrix as a table: rows are the reference, columns the map."),
                "CSV (*.csv)",
                optional=True,
            ),
            p.added(
                p.file(
                    self.CROSSWALK,
                    tr("Crosswalk"),
                    tr(
                        "CSV table with the columns from, to, name and colour that turns the classes of the reference "
                        "into those of the map: from is a class value or a text of the class field, an empty to leaves "
                        "the class out, classes that are not listed stay."
                    ),
                    advanced=True,
                )
            ),
            p.added(
                p.integer(
                    self.ERODE,
                    tr("Erode the reference"),
                    tr(
                        "Reference pixels with another class of the reference within a disc of so many pixels are left "
                        "out, as benchmarks do that do not score boundaries. Edges towards ground without a label are "
                        "kept. 0: none."
                    ),
                    default=0,
                    minimum=0,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.DESIGN,
                    tr("Design of the reference"),
                    tr(
                        "How the reference was chosen, which decides how far the numbers carry. stratified: points of "
                        "'Sample a map for its assessment', which estimate accuracy and area of the whole map with "
                        "95 % intervals. clusters: polygons, or blocks of a reference raster or of polygons and "
                        "background, whose pixels are right or wrong together; intervals by bootstrap. none: no "
                        "interval."
                    ),
                    jobs.DESIGNS,
                )
            ),
            p.added(
                p.field(
                    self.CLUSTER_FIELD,
                    tr("Cluster field"),
                    tr(
                        "For the design clusters: samples with one value of this field are one cluster. Empty: each "
                        "polygon is one."
                    ),
                    self.REFERENCE_SAMPLES,
                    optional=True,
                )
            ),
            p.added(
                p.integer(
                    self.BLOCK_SIZE,
                    tr("Block size"),
                    tr(
                        "For the design clusters with a reference raster, or where the rest is background: side of the "
                        "blocks that are drawn, in pixels of the map. Larger than the distance at which errors are "
                        "alike."
                    ),
                    minimum=1,
                    advanced=True,
                )
            ),
            p.added(
                p.raster(
                    self.PROBABILITIES,
                    tr("Probabilities"),
                    tr(
                        "The probabilities that 'Classify an image' wrote with the map: the report then tells whether "
                        "they can be trusted, and for two classes what another threshold would give."
                    ),
                    optional=True,
                )
            ),
            p.added(
                p.file_output(
                    self.AREAS,
                    tr("Areas of the classes"),
                    tr(
                        "For the design stratified: mapped and estimated area of each class, user's and producer's "
                        "accuracy, F1 and IoU, with 95 % intervals."
                    ),
                    "CSV (*.csv)",
                    optional=True,
                )
            ),
            p.added(
                p.flag(
                    self.LEAVE_OUT_TRAINING,
                    tr("Leave out the training area"),
                    tr(
                        "Reference pixels inside the patches or windows that the map's model has learned from are left "
                        "out of all numbers, and counted. Otherwise they are only counted."
                    ),
                    advanced=True,
                )
            ),
            p.added(
                p.flag(
                    self.BACKGROUND,
                    tr("The rest is background"),
                    tr(
                        "Pixels of the map outside all reference polygons are of a class of their own, 0 'background', "
                        "as where all buildings of the map are drawn. Polygons without a class field are class 1 then. "
                        "Pixels of polygons whose class is empty or left out are not compared. Otherwise nor are those "
                        "outside."
                    ),
                )
            ),
        )
        self.add_number(self.OVERALL_ACCURACY, tr("Overall accuracy"), tr("Share of pixels that are right, 0 to 1."))
        self.add_number(self.KAPPA, tr("Kappa"), tr("Agreement beyond chance; empty where it is not defined."))
        self.add_number(self.MACRO_F1, tr("Macro F1"), tr("Mean of the F1 of all classes."))
        self.add_number(self.MEAN_IOU, tr("Mean IoU"), tr("Mean intersection over union of all classes."))
        self.add_number(self.SAMPLE_COUNT, tr("Number of samples"), tr("Reference pixels that were compared."))

    def job(self, values):
        return jobs.Assess(
            map=values.raster(self.INPUT),
            output=values.output(self.OUTPUT),
            matrix=values.output(self.MATRIX),
            reference=values.raster(self.REFERENCE, required=False),
            samples=values.vector(self.REFERENCE_SAMPLES, required=False),
            field=values.field(self.FIELD),
            training=values.path(self.TRAINING),
            legend=values.legend(self.INPUT, files=False),
            crosswalk=values.path(self.CROSSWALK),
            erode=values.integer(self.ERODE),
            design=values.choice(self.DESIGN),
            cluster_field=values.field(self.CLUSTER_FIELD),
            block_size=values.optional_integer(self.BLOCK_SIZE),
            probabilities=values.raster(self.PROBABILITIES, required=False),
            areas=values.output(self.AREAS),
            leave_out_training=values.flag(self.LEAVE_OUT_TRAINING),
            background=values.flag(self.BACKGROUND),
        )
