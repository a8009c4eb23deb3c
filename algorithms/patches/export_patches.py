"""Patch images of the Orfeo ToolBox from a patch dataset."""

from __future__ import annotations

from ...tasks import jobs
from .. import parameters as p
from ..base import JobAlgorithm
from ..translate import tr


class ExportPatches(JobAlgorithm):
    """exportpatches."""

    INPUT = "INPUT"
    SPLIT = "SPLIT"
    RENUMBER = "RENUMBER"
    OUTPUT_FOLDER = "OUTPUT_FOLDER"
    PATCH_COUNT = "PATCH_COUNT"

    STEP = "patches"
    SUMMARY = (
        "Writes a patch dataset as the images that the Orfeo ToolBox trains on (otbcli_TensorflowModelTrain): "
        "patches_source1.tif, ... hold the patches top to bottom, labels.tif their classes, labels.csv names and "
        "colours. Values are those of the image, without scale; QGIS opens all of them."
    )

    def name(self):
        return "exportpatches"

    def displayName(self):
        return tr("Export patch images")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.folder(self.INPUT, tr("Patch dataset"), tr("Folder made by 'Extract patches'.")),
            p.choice(
                self.SPLIT,
                tr("Part"),
                tr("Which patches are written: all of them, or those of one part of the split."),
                jobs.EXPORTED_PARTS,
            ),
            p.flag(
                self.RENUMBER,
                tr("Number the classes from 0"),
                tr(
                    "The Orfeo ToolBox's networks want the classes 0, 1, 2, ...: yes numbers those of the dataset so, "
                    "alike for all its parts; labels.csv tells which is which. No: classes keep their values."
                ),
            ),
            p.folder_output(
                self.OUTPUT_FOLDER,
                tr("Patch images"),
                tr("Folder with patches_source1.tif, ..., labels.tif and labels.csv, which replace older ones."),
            ),
        )
        self.add_number(self.PATCH_COUNT, tr("Patches"), tr("Patches that were written."))

    def job(self, values):
        return jobs.ExportPatches(
            dataset=values.path(self.INPUT),
            output_folder=values.output(self.OUTPUT_FOLDER),
            split=values.choice(self.SPLIT),
            renumber=values.flag(self.RENUMBER),
        )
