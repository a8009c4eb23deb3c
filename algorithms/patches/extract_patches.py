"""A patch dataset from an image and sample points."""

from __future__ import annotations

from ...tasks import jobs
from .. import compat, styling
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class ExtractPatches(JobAlgorithm):
    """extractpatches."""

    INPUT = "INPUT"
    STACK = "STACK"
    BANDS = "BANDS"
    SAMPLES = "SAMPLES"
    FIELD = "FIELD"
    PATCH_SIZE = "PATCH_SIZE"
    EDGE = "EDGE"
    SCALE = "SCALE"
    OFFSET = "OFFSET"
    NODATA = "NODATA"
    NODATA_RULE = "NODATA_RULE"
    MAX_NODATA = "MAX_NODATA"
    CLASSES = "CLASSES"
    CROSSWALK = "CROSSWALK"
    LEGEND = "LEGEND"
    NOMENCLATURE = "NOMENCLATURE"
    OUTPUT = "OUTPUT"
    FOOTPRINTS = "FOOTPRINTS"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"

    STEP = "patches"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Cuts a square of pixels around every sample point out of the image: the patch dataset that training reads. "
        "A field split of the samples is kept."
    )

    def name(self):
        return "extractpatches"

    def displayName(self):
        return tr("Extract patches")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster_source(tr("The image that the patches are cut from.")),
            p.vector(self.SAMPLES, tr("Samples"), tr("Sample points, in any CRS."), compat.SOURCE_POINT),
            p.field(
                self.FIELD,
                tr("Class field"),
                tr("Field of the samples that holds the class, e.g. class_id."),
                "SAMPLES",
            ),
            p.integer(
                self.PATCH_SIZE,
                tr("Patch size in pixels"),
                tr(
                    "Side of a patch. Odd sizes are recommended: flipping an even patch moves the labelled pixel. The "
                    "reference tutorial uses 16."
                ),
                default=9,
                minimum=1,
            ),
            p.choice(
                self.EDGE,
                tr("At the image's edge"),
                tr("reject: leave out patches that reach over the edge. reflect: fill them with mirrored pixels."),
                jobs.EDGES,
            ),
            p.legend(),
            p.real(
                self.SCALE,
                tr("Scale"),
                tr("Factor from pixel values to physical units. Unset: what the file says of each band."),
                advanced=True,
            ),
            p.real(
                self.OFFSET,
                tr("Offset"),
                tr("Added after the scale. Unset: what the file says of each band."),
                advanced=True,
            ),
            p.nodata(),
            p.choice(
                self.NODATA_RULE,
                tr("No-data rule"),
                tr("any: a no-data value counts in each band by itself. all: only where all bands hold it."),
                jobs.NODATA_RULES,
                advanced=True,
            ),
            p.real(
                self.MAX_NODATA,
                tr("Most no-data"),
                tr("Largest share of no-data in an accepted patch, from 0 to 1."),
                default=0.0,
                minimum=0,
                maximum=1,
                advanced=True,
            ),
            p.keep_list(),
            p.crosswalk(),
            p.folder_output(
                self.OUTPUT, tr("Patch dataset"), tr("Folder with the patches, their labels and dataset.json.")
            ),
            p.sink(
                self.FOOTPRINTS,
                tr("Footprints"),
                tr("The square of every candidate, with class_id, split, accepted and the reason where it was not."),
                compat.SOURCE_POLYGON,
                optional=True,
            ),
        )
        self.add_number(self.ACCEPTED, tr("Accepted patches"), tr("Patches in the dataset."))
        self.add_number(self.REJECTED, tr("Rejected patches"), tr("Samples without a patch: at the edge, no data."))

    def job(self, values):
        return jobs.ExtractPatches(
            source=values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA),
            samples=values.vector(self.SAMPLES),
            field=values.field(self.FIELD),
            output=values.output(self.OUTPUT),
            footprints=values.output(self.FOOTPRINTS),
            patch_size=values.integer(self.PATCH_SIZE),
            edge=values.choice(self.EDGE),
            scale=values.optional_real(self.SCALE),
            offset=values.optional_real(self.OFFSET),
            nodata_rule=values.choice(self.NODATA_RULE),
            max_nodata=values.real(self.MAX_NODATA),
            classes=values.integers(self.CLASSES),
            crosswalk=values.path(self.CROSSWALK),
            legend=values.legend(self.SAMPLES, self.FIELD),
        )

    def painters(self, values, result):
        return {self.FOOTPRINTS: styling.by_split_or_class(result.classes)}
