"""Map an image with a trained model."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from .. import styling
from ..base import JobAlgorithm
from ..translate import tr


class Classify(JobAlgorithm):
    """classify."""

    INPUT = "INPUT"
    STACK = "STACK"
    BANDS = "BANDS"
    MODEL = "MODEL"
    EXTENT = "EXTENT"
    BOX = "BOX"
    CONTINUE = "CONTINUE"
    DEVICE = "DEVICE"
    OUTPUT = "OUTPUT"
    PROBABILITIES = "PROBABILITIES"
    CONFIDENCE = "CONFIDENCE"
    ENTROPY = "ENTROPY"
    MARGIN = "MARGIN"
    PROBABILITY_TYPE = "PROBABILITY_TYPE"
    FORMAT = "FORMAT"
    OVERLAP = "OVERLAP"
    RUNTIME = "RUNTIME"
    PRECISION = "PRECISION"
    MASK = "MASK"
    BORDER = "BORDER"
    MIN_CONFIDENCE = "MIN_CONFIDENCE"
    DAMAGED = "DAMAGED"
    MEMORY = "MEMORY"
    TTA = "TTA"
    PRIORS = "PRIORS"
    PRIORS_FILE = "PRIORS_FILE"
    THRESHOLD = "THRESHOLD"
    NODATA = "NODATA"
    MODELS = "MODELS"
    PIXELS = "PIXELS"
    SECONDS = "SECONDS"
    NODATA_VALUE = "NODATA_VALUE"
    CLASS_AREAS = "CLASS_AREAS"

    STEP = "mapping"
    NAMED_AFTER = "INPUT"
    ASIDE = ("CONFIDENCE", "PROBABILITIES", "ENTROPY", "MARGIN")
    SUMMARY = (
        "Maps an image of any size with a trained model: one class per pixel, on the image's own grid, with the names "
        "and colours of the classes. An image that does not look like the training image is refused."
    )

    def name(self):
        return "classify"

    def displayName(self):
        return tr("Classify an image")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster_source(tr("The image to map; its bands are those that the model was trained on.")),
            p.model("MODEL", tr("Model"), tr("Model file made by one of the training algorithms.")),
            p.extent(),
            p.text_value(
                self.BOX,
                tr("Box in pixels"),
                tr("Only this part of the image, as column:row:width:height, in place of an extent."),
                advanced=True,
            ),
            p.flag(
                self.CONTINUE,
                tr("Continue although the image differs"),
                tr("Map an image whose values differ much from the training image; the result may be meaningless."),
                advanced=True,
            ),
            p.device(),
            p.raster_output(self.OUTPUT, tr("Class map"), tr("Class values, with legend.")),
            p.raster_output(
                self.PROBABILITIES,
                tr("Probabilities"),
                tr("One band per class, from 0 to 1."),
                optional=True,
            ),
            p.raster_output(
                self.CONFIDENCE,
                tr("Confidence"),
                tr(
                    "Probability of the class that was chosen, from 0 to 1; below 0.5 where THRESHOLD chose the less "
                    "probable of two classes."
                ),
                optional=True,
            ),
        )
        self.add_parameters(
            p.added(
                p.raster_output(
                    self.ENTROPY,
                    tr("Entropy"),
                    tr("How undecided the model is: 0 where one class has all probability, 1 where all are alike."),
                    optional=True,
                )
            ),
            p.added(
                p.raster_output(
                    self.MARGIN,
                    tr("Margin"),
                    tr(
                        "Probability of the class that was chosen less the largest of the others, from 0 to 1; 0 also "
                        "where THRESHOLD chose the class of the smaller probability."
                    ),
                    optional=True,
                )
            ),
            p.added(
                p.choice(
                    self.PROBABILITY_TYPE,
                    tr("Type of probabilities"),
                    tr(
                        "How probabilities, confidence, entropy and margin are stored: as numbers of four bytes, or in "
                        "one byte in steps of 0.004, which QGIS shows from 0 to 1 all the same."
                    ),
                    jobs.PROBABILITY_TYPES,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.FORMAT,
                    tr("Format"),
                    tr("cog makes cloud-optimised GeoTIFFs, with overviews: large maps are shown faster."),
                    jobs.RASTER_FORMATS,
                    advanced=True,
                )
            ),
            p.added(
                p.integer(
                    self.OVERLAP,
                    tr("Overlap"),
                    tr(
                        "Pixels around each window that a network of one class per pixel sees besides; unset: as many "
                        "as it looks at. With fewer, the map depends on how the image is cut into windows. Not for "
                        "networks of one class per patch."
                    ),
                    minimum=0,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.RUNTIME,
                    tr("Runtime"),
                    tr(
                        "What computes the network. auto: torch on a GPU, else ONNX Runtime; for jobs of more than a "
                        "minute the fastest on this computer. OpenVINO is an extra of 'Set up the engine'."
                    ),
                    jobs.RUNTIMES,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.PRECISION,
                    tr("Precision"),
                    tr(
                        "fast computes in half precision on a GPU: quicker, but some pixels in a thousand get another "
                        "class. On the processor it changes nothing."
                    ),
                    jobs.PRECISIONS,
                    advanced=True,
                )
            ),
        )
        self.add_parameters(
            p.mask(
                tr(
                    "Only pixels inside are mapped: whose centre lies in a polygon, or where a raster of the image's "
                    "own grid is above 0. The others are no-data."
                )
            ),
            p.added(
                p.choice(
                    self.BORDER,
                    tr("Border"),
                    tr(
                        "Pixels whose surroundings reach over the image's edge: reflect mirrors the image there, "
                        "nodata leaves these pixels out."
                    ),
                    jobs.BORDERS,
                    advanced=True,
                )
            ),
            p.added(
                p.real(
                    self.MIN_CONFIDENCE,
                    tr("Least confidence"),
                    tr("Pixels whose class has a lower probability than this, from 0 to 1, are no-data. Unset: none."),
                    minimum=0,
                    maximum=1,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.DAMAGED,
                    tr("Damaged blocks"),
                    tr(
                        "Blocks of the image that cannot be decoded: error names the first and stops, nodata maps the "
                        "rest and says how many pixels are missing."
                    ),
                    jobs.DAMAGED_BLOCKS,
                    advanced=True,
                )
            ),
            p.added(
                p.integer(
                    self.MEMORY,
                    tr("Memory in MB"),
                    tr(
                        "What the mapping may take of the memory; networks that look far are faster with more. Unset: "
                        "1500. The map does not depend on it."
                    ),
                    minimum=200,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.TTA,
                    tr("Test-time augmentation"),
                    tr(
                        "The image is also looked at flipped (flips: 4 orientations), or flipped and turned (full: 8), "
                        "and the probabilities are averaged: a little more accurate, 4 or 8 times as long."
                    ),
                    jobs.ORIENTATIONS,
                    advanced=True,
                )
            ),
            p.added(
                p.files(
                    self.MODELS,
                    tr("Further models"),
                    tr(
                        "Further model files of the same bands and classes, networks or forests: the probabilities of "
                        "all are averaged."
                    ),
                    optional=True,
                    advanced=True,
                )
            ),
            p.added(
                p.choice(
                    self.PRIORS,
                    tr("Expected shares of the classes"),
                    tr(
                        "How frequent the classes are in the image. training: as where the model learned. equal: all "
                        "alike. estimated: from the model's own answers in the image. file: PRIORS_FILE."
                    ),
                    jobs.PRIORS,
                    advanced=True,
                )
            ),
            p.added(
                p.file(
                    self.PRIORS_FILE,
                    tr("File of shares"),
                    tr("CSV file with a class value or name and its share in each line, e.g. 3,0.25."),
                    advanced=True,
                )
            ),
            p.added(
                p.real(
                    self.THRESHOLD,
                    tr("Threshold"),
                    tr(
                        "Of two classes: probability from which a pixel is of the second. Lower: more of it is found, "
                        "and more that is none. Unset: the model's own, chosen when it was trained."
                    ),
                    minimum=0,
                    maximum=1,
                    advanced=True,
                )
            ),
        )
        self.add_parameters(p.added(p.nodata()))
        self.add_number(self.PIXELS, tr("Pixels"), tr("Pixels that were given a class."))
        self.add_number(self.SECONDS, tr("Seconds"), tr("Time that the mapping took."))
        self.add_number(self.NODATA_VALUE, tr("No-data value"), tr("Value of pixels without a class."))
        self.add_string(
            self.CLASS_AREAS,
            tr("Class areas"),
            tr("JSON: pixels and hectares of each class, by pixel counting, which is biased."),
        )

    def job(self, values):
        output = values.output(self.OUTPUT)
        mask, mask_layer = values.raster_or_vector(self.MASK)
        return jobs.Classify(
            source=values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA),
            model=values.path(self.MODEL),
            output=output,
            probabilities=values.output(self.PROBABILITIES),
            confidence=values.output(self.CONFIDENCE),
            extent=values.extent(self.EXTENT),
            box=values.box(self.BOX),
            continue_anyway=values.flag(self.CONTINUE),
            device_choice=values.choice(self.DEVICE),
            entropy=values.output(self.ENTROPY),
            margin=values.output(self.MARGIN),
            probability_type=values.choice(self.PROBABILITY_TYPE),
            format=values.choice(self.FORMAT),
            # Of no use beside a temporary output, whose name no other run has, nor with inputs that are copied anew.
            resume=values.continues(output),
            overlap=values.optional_integer(self.OVERLAP),
            runtime=values.choice(self.RUNTIME),
            precision=values.choice(self.PRECISION),
            mask=mask,
            mask_layer=mask_layer,
            border=values.choice(self.BORDER),
            min_confidence=values.optional_real(self.MIN_CONFIDENCE),
            damaged=values.choice(self.DAMAGED),
            memory=values.optional_integer(self.MEMORY),
            priors=values.choice(self.PRIORS),
            priors_file=values.path(self.PRIORS_FILE),
            threshold=values.optional_real(self.THRESHOLD),
            tta=values.choice(self.TTA),
            more_models=values.files(self.MODELS),
        )

    def painters(self, values, result):
        return {
            self.OUTPUT: styling.by_class(result.classes),
            self.PROBABILITIES: styling.probability(result.class_areas),
            self.CONFIDENCE: styling.confidence,
            self.MARGIN: styling.confidence,
            self.ENTROPY: styling.entropy,
        }
