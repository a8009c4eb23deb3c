"""A patch dataset from images and sample points or footprints."""

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
    EXPRESSIONS = "EXPRESSIONS"
    SAMPLES = "SAMPLES"
    FIELD = "FIELD"
    LABELS = "LABELS"
    LABEL_FEATURES = "LABEL_FEATURES"
    LABEL_FIELD = "LABEL_FIELD"
    BACKGROUND = "BACKGROUND"
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
    SHARED_PATCHES = "SHARED_PATCHES"

    STEP = "patches"
    NAMED_AFTER = "INPUT"
    SUMMARY = (
        "Cuts a square of pixels around every sample point, or in every footprint of 'Select patches on a grid or at "
        "random', out of the image: the patch dataset that training reads. A patch has one class, that of its sample, "
        "or with labels one class per pixel. A field split of the samples is kept."
    )

    def name(self):
        return "extractpatches"

    def displayName(self):
        return tr("Extract patches")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.raster_source(tr("The image that the patches are cut from.")),
            p.vector(
                self.SAMPLES,
                tr("Samples"),
                tr(
                    "Sample points, or footprints of 'Select patches on a grid or at random' (squares of the patch "
                    "size), in any CRS."
                ),
            ),
            p.added(
                p.field(
                    self.FIELD,
                    tr("Class field"),
                    tr(
                        "Field of the samples that holds the class, e.g. class_id. Not read where labels give every "
                        "pixel a class."
                    ),
                    "SAMPLES",
                )
            ),
            *_label_parameters(),
            p.integer(
                self.PATCH_SIZE,
                tr("Patch size in pixels"),
                tr(
                    "Side of a patch, or of the footprints. Odd sizes are recommended for points: flipping an even "
                    "patch moves the labelled pixel. The reference tutorial uses 16."
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
            p.scale_and_offset(),
            p.added(p.expressions()),
            p.nodata(),
            p.nodata_rule(),
            p.real(
                self.MAX_NODATA,
                tr("Most no-data"),
                tr("Largest share of no-data in an accepted patch, from 0 to 1; in each source by itself."),
                default=0.0,
                minimum=0,
                maximum=1,
                advanced=True,
            ),
            *_further_sources(),
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
        self.add_number(
            self.SHARED_PATCHES,
            tr("Patches that share pixels"),
            tr("Patches that share pixels with a patch of another part (split): 0 where accuracies can be trusted."),
        )

    def job(self, values):
        sources, sizes = _given_sources(values)
        return jobs.ExtractPatches(
            source=values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA, expressions=self.EXPRESSIONS),
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
            legend=_legend(values),
            more_sources=sources,
            more_patch_sizes=sizes,
            labels=values.raster(self.LABELS, required=False),
            label_features=values.vector(self.LABEL_FEATURES, required=False),
            label_field=values.field(self.LABEL_FIELD),
            background=values.flag(self.BACKGROUND),
        )

    def painters(self, values, result):
        return {self.FOOTPRINTS: styling.by_split_or_class(result.classes)}


def _label_parameters():
    return [
        p.added(
            p.raster(
                ExtractPatches.LABELS,
                tr("Labels"),
                tr(
                    "Raster with the class of every pixel, for networks that map every pixel of a patch; on any grid. "
                    "What is no-data in it is not labelled. Its band 1 is read."
                ),
                optional=True,
            )
        ),
        p.added(
            p.vector(
                ExtractPatches.LABEL_FEATURES,
                tr("Label features"),
                tr(
                    "Polygons with the class of every pixel whose centre they hold, in place of a raster; pixels "
                    "claimed by two classes are not labelled."
                ),
                optional=True,
            )
        ),
        p.added(
            p.field(
                ExtractPatches.LABEL_FIELD,
                tr("Class field of the label features"),
                tr("Field of the label features that holds the class. Empty: all features are of one class, 1."),
                ExtractPatches.LABEL_FEATURES,
                optional=True,
            )
        ),
        p.added(
            p.flag(
                ExtractPatches.BACKGROUND,
                tr("The rest is background"),
                tr(
                    "Pixels without a label are of a class of their own, 0 'background', as where all buildings are "
                    "drawn. Pixels whose class is empty, not clear or left out by CROSSWALK stay without a class; what "
                    "is of another class than CLASSES names is background. Otherwise pixels without a label are not "
                    "labelled either."
                ),
            )
        ),
    ]


def _further_sources():
    found = []
    for number in range(2, jobs.MOST_SOURCES + 1):
        what = tr(
            "A further image of the same place, of any resolution, of which patches of the same ground are cut: for "
            "networks of the Orfeo ToolBox that take several images. The training algorithms here take one."
        )
        found += [p.added(parameter) for parameter in p.raster_source(what, number)]
        found.append(p.added(p.nodata(number)))
        found.append(
            p.added(
                p.integer(
                    f"PATCH_SIZE{number}",
                    tr("Patch size of source {}").format(number),
                    tr("Side of its patches in its own pixels. Unset: the ground that a patch of the image covers."),
                    minimum=1,
                    advanced=True,
                )
            )
        )
    return found


def _given_sources(values):
    """Return the further sources and their patch sizes, 0 where unset."""
    numbers = range(2, jobs.MOST_SOURCES + 1)
    given = [number for number in numbers if values.given(f"INPUT{number}")]
    sources = [values.raster(f"INPUT{n}", f"STACK{n}", f"BANDS{n}", f"NODATA{n}") for n in given]
    return tuple(sources), tuple(values.optional_integer(f"PATCH_SIZE{n}") or 0 for n in given)


def _legend(values):
    """Return names and colours of what holds the classes: the labels where they are given, else the samples."""
    if values.given(ExtractPatches.LABELS):
        return values.legend(ExtractPatches.LABELS)
    if values.given(ExtractPatches.LABEL_FEATURES):
        return values.legend(ExtractPatches.LABEL_FEATURES, ExtractPatches.LABEL_FIELD)
    return values.legend(ExtractPatches.SAMPLES, ExtractPatches.FIELD)
