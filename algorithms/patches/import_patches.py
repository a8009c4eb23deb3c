"""A patch dataset from patch images of the Orfeo ToolBox."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class ImportPatches(JobAlgorithm):
    """importpatches."""

    INPUT = "INPUT"
    LABELS = "LABELS"
    FURTHER = ("INPUT2", "INPUT3", "INPUT4")
    PATCH_SIZE = "PATCH_SIZE"
    SPLIT = "SPLIT"
    NODATA = "NODATA"
    SCALE = "SCALE"
    OFFSET = "OFFSET"
    OUTPUT = "OUTPUT"
    ACCEPTED = "ACCEPTED"

    STEP = "patches"
    SUMMARY = (
        "Turns patch images of the Orfeo ToolBox (otbcli_PatchesExtraction) and their labels into a patch dataset that "
        "training reads. Patch images do not tell where their patches lie, so that nobody can check whether training "
        "and validation share pixels: import each part by itself, with its split."
    )

    def name(self):
        return "importpatches"

    def displayName(self):
        return tr("Import patch images")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster(
                self.INPUT,
                tr("Patch image"),
                tr("Raster as wide as a patch, in which square patches lie top to bottom; all its bands are taken."),
            ),
            p.raster(
                self.LABELS,
                tr("Labels"),
                tr(
                    "The classes, in the order of the patches: an image of 1 x n pixels holds one for each patch, one "
                    "of the patch image's own size one for each pixel. Patches that are no-data here are left out."
                ),
            ),
            p.choice(
                self.SPLIT,
                tr("Part"),
                tr("What these patches are for; none: training cuts its own validation part from them, at random."),
                jobs.PARTS,
            ),
            p.legend(),
            *(
                p.raster(
                    name,
                    tr("Further patch image {}").format(number),
                    tr(
                        "Patches of another image at the same places, in the same order; their size may differ. Its "
                        "no-data value is what its file says."
                    ),
                    optional=True,
                )
                for number, name in enumerate(self.FURTHER, start=2)
            ),
            p.integer(
                self.PATCH_SIZE,
                tr("Patch size in pixels"),
                tr("Side of a patch, to be checked. Unset: the width of the patch image."),
                minimum=1,
                advanced=True,
            ),
            p.nodata(),
            p.scale_and_offset(),
            p.folder_output(
                self.OUTPUT, tr("Patch dataset"), tr("Folder with the patches, their labels and dataset.json.")
            ),
        )
        self.add_number(self.ACCEPTED, tr("Accepted patches"), tr("Patches in the dataset."))

    def job(self, values):
        further = (values.raster(name, required=False) for name in self.FURTHER)
        return jobs.ImportPatches(
            source=values.raster(self.INPUT, nodata=self.NODATA),
            labels=values.raster(self.LABELS),
            output=values.output(self.OUTPUT),
            more_sources=tuple(source for source in further if source is not None),
            patch_size=values.optional_integer(self.PATCH_SIZE),
            split=values.choice(self.SPLIT),
            scale=values.optional_real(self.SCALE),
            offset=values.optional_real(self.OFFSET),
            legend=values.legend(self.LABELS),
        )
