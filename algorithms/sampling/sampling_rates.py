"""One budget of samples for several images."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class SamplingRates(JobAlgorithm):
    """samplingrates."""

    INPUTS = "INPUTS"
    STRATEGY = "STRATEGY"
    MODE = "MODE"
    COUNT = "COUNT"
    PERCENT = "PERCENT"
    COUNTS = "COUNTS"
    RATES_FILES = "RATES_FILES"
    OUTPUT_FOLDER = "OUTPUT_FOLDER"

    STEP = "sampling"
    SUMMARY = (
        "Shares one budget of samples among several images, from the statistics that 'Count the pixels of polygons' "
        "makes of each. The file of rates of an image goes into 'Select samples from polygons', strategy byclass."
    )

    def name(self):
        return "samplingrates"

    def displayName(self):
        return tr("Share samples among images")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.files(
                self.INPUTS,
                tr("Statistics"),
                tr("One XML file per image, made by 'Count the pixels of polygons'; their order is that of the rates."),
            ),
            p.choice(
                self.STRATEGY,
                tr("Strategy"),
                tr(
                    "How many samples per class, over all images. upto: the number, or all where a class has fewer. "
                    "smallest: as many as the rarest class has. constant: the number. percent: a share of the pixels. "
                    "total: the number in all. byclass: as the file of rates says. all: every labelled pixel."
                ),
                jobs.VECTOR_STRATEGIES,
            ),
            p.choice(
                self.MODE,
                tr("Mode"),
                tr(
                    "proportional: an image gives the more, the more pixels it has. equal: all images give alike. "
                    "custom: every image has its own number."
                ),
                jobs.RATES_MODES,
            ),
            p.integer(
                self.COUNT,
                tr("Number of samples"),
                tr("Samples per class of all images together; for the strategy total, in all."),
                default=1000,
                minimum=1,
            ),
            p.real(
                self.PERCENT,
                tr("Share"),
                tr("For the strategy percent: the share of the pixels of each class, from 0 to 1."),
                default=0.5,
                minimum=0,
                maximum=1,
            ),
            p.text_value(
                self.COUNTS,
                tr("Numbers of the images"),
                tr(
                    "For the mode custom: the number (for the strategy percent, the share) of each image, in their "
                    "order, separated by commas: 700, 20, 300."
                ),
                advanced=True,
            ),
            p.files(
                self.RATES_FILES,
                tr("Files of rates"),
                tr(
                    "For the strategy byclass: a CSV file with a class and its samples on each line; for the mode "
                    "custom, one per image in their order."
                ),
                optional=True,
                advanced=True,
            ),
            p.folder_output(
                self.OUTPUT_FOLDER,
                tr("Rates"),
                tr("Folder with the files rates_1.csv, rates_2.csv, ... in the order of the statistics."),
            ),
        )

    def job(self, values):
        return jobs.SamplingRates(
            statistics=values.files(self.INPUTS),
            output_folder=values.output(self.OUTPUT_FOLDER),
            strategy=values.choice(self.STRATEGY),
            mode=values.choice(self.MODE),
            count=values.integer(self.COUNT),
            percent=values.real(self.PERCENT),
            counts=values.reals(self.COUNTS),
            rates_files=values.files(self.RATES_FILES),
        )
