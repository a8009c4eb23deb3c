"""Parameters that several algorithms share, each with its help: a parameter without help cannot be made here."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from qgis.core import (
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)

from ..tasks import jobs
from ..tasks.classtable import NOMENCLATURES
from . import compat
from .translate import tr

MODEL_FILTER = "Deepscape model (*.safetensors)"
CLASS_FIELD = "class_id"
LEGEND_FILTER = "Legend (*.qml *.json *.csv)"
# QGIS refuses an input that does not match the filter; its own default, *.*, refuses files without a suffix.
ANY_FILE = "All files (*)"


def described(parameter: QgsProcessingParameterDefinition, text: str, advanced: bool = False) -> Any:
    """Return the parameter with its help, and among the advanced ones where it is seldom needed."""
    parameter.setHelp(text)
    if advanced:
        parameter.setFlags(parameter.flags() | compat.ADVANCED)
    return parameter


def added(parameter: QgsProcessingParameterDefinition) -> Any:
    """Return a parameter that came after its algorithm was published: optional, or models saved before are refused."""
    parameter.setFlags(parameter.flags() | compat.OPTIONAL)
    return parameter


# --- one value -------------------------------------------------------------------------------------------------------


def integer(
    name: str,
    title: str,
    text: str,
    default: Optional[int] = None,
    minimum: Optional[int] = None,
    advanced: bool = False,
) -> Any:
    """A whole number; optional ("unset") when it has no default."""
    return _number(name, title, text, compat.INTEGER, default, minimum, None, advanced)


def real(
    name: str,
    title: str,
    text: str,
    default: Optional[float] = None,
    minimum: Optional[float] = None,
    maximum: Optional[float] = None,
    advanced: bool = False,
) -> Any:
    """A number; optional ("unset") when it has no default."""
    return _number(name, title, text, compat.DOUBLE, default, minimum, maximum, advanced)


def _number(name, title, text, kind, default, minimum, maximum, advanced) -> Any:
    limits = {}
    if minimum is not None:
        limits["minValue"] = minimum
    if maximum is not None:
        limits["maxValue"] = maximum
    parameter = QgsProcessingParameterNumber(
        name, title, type=kind, defaultValue=default, optional=default is None, **limits
    )
    return described(parameter, text, advanced)


def choice(name: str, title: str, text: str, options: Sequence[str], default: str = "", advanced: bool = False) -> Any:
    """One of some published words; the first is the default unless another is given."""
    parameter = QgsProcessingParameterEnum(
        name, title, options=list(options), defaultValue=default or options[0], usesStaticStrings=True
    )
    valid = tr("Values: {}.").format(", ".join(options))
    return described(parameter, f"{text} {valid}", advanced)


def choices(name: str, title: str, text: str, options: Sequence[str], advanced: bool = False) -> Any:
    """Any of some published words; none unless some are given."""
    parameter = QgsProcessingParameterEnum(
        name, title, options=list(options), allowMultiple=True, optional=True, usesStaticStrings=True
    )
    valid = tr("Values: {}.").format(", ".join(options))
    return described(parameter, f"{text} {valid}", advanced)


def flag(name: str, title: str, text: str, default: bool = False, advanced: bool = False) -> Any:
    """Yes or no."""
    return described(QgsProcessingParameterBoolean(name, title, defaultValue=default), text, advanced)


def text_value(name: str, title: str, text: str, advanced: bool = False) -> Any:
    """An optional line of text."""
    return described(QgsProcessingParameterString(name, title, optional=True), text, advanced)


def seed() -> Any:
    """SEED."""
    return integer(
        "SEED",
        tr("Random seed"),
        tr("The same seed gives the same result; another seed another random choice."),
        default=0,
        minimum=0,
        advanced=True,
    )


def device() -> Any:
    """DEVICE."""
    return choice(
        "DEVICE",
        tr("Device"),
        tr("Where the computation runs: auto takes the GPU when the engine finds one, else the processor."),
        jobs.DEVICES,
        advanced=True,
    )


def sampler() -> Any:
    """SAMPLER."""
    return choice(
        "SAMPLER",
        tr("Sampler"),
        tr(
            "Which pixels of a class are taken. spread: evenly over all of them. random: at random, by the seed. "
            "periodic: every n-th as the Orfeo ToolBox does, which never reaches the last rows."
        ),
        jobs.SAMPLERS,
        advanced=True,
    )


def min_distance() -> Any:
    """MIN_DISTANCE; it came after the algorithms that have it were published."""
    return added(
        integer(
            "MIN_DISTANCE",
            tr("Least distance in pixels"),
            tr(
                "Samples of all classes keep this distance from each other, max(|dx|, |dy|). A class takes other "
                "pixels in place of those that are too near (not with the sampler periodic); what it lacks in the end "
                "is told. Unset: any distance."
            ),
            minimum=1,
            advanced=True,
        )
    )


# --- inputs ----------------------------------------------------------------------------------------------------------


def raster(name: str, title: str, text: str, optional: bool = False) -> Any:
    """A raster layer."""
    return described(QgsProcessingParameterRasterLayer(name, title, optional=optional), text)


def raster_source(what: str, number: int = 1, optional: bool = False) -> list[Any]:
    """INPUT, STACK and BANDS: a raster source, as all algorithms take it.

    Further ones, from ``number`` 2 on, are INPUT2, STACK2 and BANDS2 ...: optional and advanced.
    """
    own = "" if number == 1 else str(number)
    image = tr("Image") if number == 1 else tr("Image of source {}").format(number)
    stack = tr("Further images") if number == 1 else tr("Further images of source {}").format(number)
    bands = tr("Bands") if number == 1 else tr("Bands of source {}").format(number)
    first = raster(f"INPUT{own}", image, what, optional=optional or number > 1)
    return [
        first if number == 1 else described(first, what, advanced=True),
        described(
            QgsProcessingParameterMultipleLayers(f"STACK{own}", stack, compat.SOURCE_RASTER, optional=True),
            tr(
                "Further rasters of exactly the same grid; all their bands follow those of the image (single-band "
                "files of one scene, an elevation model)."
            ),
            advanced=True,
        ),
        described(
            QgsProcessingParameterBand(
                f"BANDS{own}", bands, parentLayerParameterName=f"INPUT{own}", optional=True, allowMultiple=True
            ),
            tr("Bands of the image to use; all of them when none is chosen."),
            advanced=True,
        ),
    ]


def band(name: str, title: str, text: str, parent: str) -> Any:
    """One band of the raster ``parent``; the first by default."""
    # Optional, for QGIS does not let a band's default stand in for a missing value.
    return described(QgsProcessingParameterBand(name, title, 1, parentLayerParameterName=parent, optional=True), text)


def nodata(number: int = 1) -> Any:
    """NODATA, or NODATA2 ... of further sources."""
    return real(
        "NODATA" if number == 1 else f"NODATA{number}",
        tr("No-data value") if number == 1 else tr("No-data value of source {}").format(number),
        tr("Pixel value that means no data, in place of the one that the file declares. Unset: the file's own."),
        advanced=True,
    )


def nodata_rule() -> Any:
    """NODATA_RULE."""
    return choice(
        "NODATA_RULE",
        tr("No-data rule"),
        tr(
            "any: a no-data value counts in each band by itself. all: only where all bands hold it. auto: all for byte "
            "images, any for others. Masks, transparency and NaN count in each band by itself always."
        ),
        jobs.NODATA_RULES,
        "auto",
        advanced=True,
    )


def expressions() -> Any:
    """EXPRESSIONS of further bands."""
    return text_value(
        "EXPRESSIONS",
        tr("Computed bands"),
        tr(
            "Further bands computed from those of the image, separated by semicolons, e.g. "
            "NDVI = (B8 - B4) / (B8 + B4). The model keeps them and computes them again when mapping."
        ),
        advanced=True,
    )


def scale_and_offset() -> list[Any]:
    """SCALE and OFFSET."""
    return [
        real(
            "SCALE",
            tr("Scale"),
            tr("Factor from pixel values to physical units. Unset: what the file says of each band."),
            advanced=True,
        ),
        real(
            "OFFSET", tr("Offset"), tr("Added after the scale. Unset: what the file says of each band."), advanced=True
        ),
    ]


def vector(name: str, title: str, text: str, kind: Any = compat.SOURCE_VECTOR, optional: bool = False) -> Any:
    """A vector layer: any feature source, so that memory layers, edits, filters and selections all work."""
    return described(QgsProcessingParameterFeatureSource(name, title, [kind], optional=optional), text)


def mask(text: str) -> Any:
    """MASK, a raster or a layer of polygons; it came after the algorithms that have it were published.

    Never the parent of a field parameter: QGIS 3.22 ends when such a dialog opens.
    """
    kinds = [compat.SOURCE_RASTER, compat.SOURCE_POLYGON]
    parameter = QgsProcessingParameterMapLayer("MASK", tr("Mask"), optional=True, types=kinds)
    return added(described(parameter, text, advanced=True))


def field(name: str, title: str, text: str, parent: str, optional: bool = False) -> Any:
    """A field of the vector source ``parent`` (never of a map layer: QGIS 3.22 ends when such a dialog opens).

    Its default is the field that our own samples have: dialogs would choose the first one, which is mostly the id.
    """
    default = None if optional else CLASS_FIELD
    parameter = QgsProcessingParameterField(
        name, title, default, parentLayerParameterName=parent, type=compat.FIELD_ANY, optional=optional
    )
    return described(parameter, text)


def extent() -> Any:
    """EXTENT."""
    return described(
        QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
        tr("Only this part of the image, in any CRS; snapped outward to whole pixels. Empty: all of it."),
    )


def keep_list() -> Any:
    """CLASSES."""
    return text_value(
        "CLASSES",
        tr("Classes to keep"),
        tr("Class values to keep, separated by commas, e.g. 1,2,5. Empty: all classes."),
        advanced=True,
    )


def crosswalk() -> Any:
    """CROSSWALK."""
    return file(
        "CROSSWALK",
        tr("Crosswalk"),
        tr(
            "CSV table with the columns from, to, name and colour that turns the classes of the data into others: from "
            "is a class value or a text of the class field, an empty to ignores the class, classes that are not listed "
            "stay. The classes to keep are those after it."
        ),
        advanced=True,
    )


def legend() -> list[Any]:
    """LEGEND and NOMENCLATURE."""
    return [
        described(
            QgsProcessingParameterFile(
                "LEGEND", tr("Legend file"), optional=True, fileFilter=f"{LEGEND_FILTER};;{ANY_FILE}"
            ),
            tr(
                "Names and colours of the classes: a QGIS style (.qml), or a .json or .csv file with value, name and "
                "colour. Empty: those of the nomenclature, else of the layer's own style, else a colour-blind-safe "
                "palette."
            ),
        ),
        choice(
            "NOMENCLATURE",
            tr("Nomenclature"),
            tr("A ready list of class names and colours."),
            NOMENCLATURES,
            advanced=True,
        ),
    ]


def model(name: str, title: str, text: str, optional: bool = False, advanced: bool = False) -> Any:
    """A model file."""
    parameter = QgsProcessingParameterFile(name, title, optional=optional, fileFilter=f"{MODEL_FILTER};;{ANY_FILE}")
    return described(parameter, text, advanced)


def file(name: str, title: str, text: str, advanced: bool = False) -> Any:
    """An optional file of any kind."""
    return described(QgsProcessingParameterFile(name, title, optional=True, fileFilter=ANY_FILE), text, advanced)


def files(name: str, title: str, text: str, optional: bool = False, advanced: bool = False) -> Any:
    """Several files of any kind, in an order of the user's own."""
    parameter = QgsProcessingParameterMultipleLayers(name, title, compat.SOURCE_FILE, optional=optional)
    return described(parameter, text, advanced)


def folder(name: str, title: str, text: str, optional: bool = False, advanced: bool = False) -> Any:
    """A folder that exists."""
    parameter = QgsProcessingParameterFile(name, title, behavior=compat.FOLDER, optional=optional)
    return described(parameter, text, advanced)


# --- outputs ---------------------------------------------------------------------------------------------------------


def raster_output(name: str, title: str, text: str, optional: bool = False) -> Any:
    """A raster that the engine writes; an optional one is not made unless it is asked for."""
    return described(
        QgsProcessingParameterRasterDestination(name, title, optional=optional, createByDefault=not optional), text
    )


def sink(name: str, title: str, text: str, kind: Any, optional: bool = False) -> Any:
    """A feature sink."""
    return described(QgsProcessingParameterFeatureSink(name, title, kind, optional=optional), text)


def file_output(name: str, title: str, text: str, file_filter: str, optional: bool = False) -> Any:
    """A file that the engine writes; an optional one is not made unless it is asked for."""
    return described(
        QgsProcessingParameterFileDestination(
            name, title, fileFilter=file_filter, optional=optional, createByDefault=not optional
        ),
        text,
    )


def folder_output(name: str, title: str, text: str) -> Any:
    """A folder that the engine writes."""
    return described(QgsProcessingParameterFolderDestination(name, title), text)


def samples_report() -> Any:
    """REPORT of a selection of samples; it came after the algorithms that have it were published."""
    text = tr("A page with the pixels and samples of each class, as a table and a chart.")
    return added(file_output("REPORT", tr("Report"), text, "HTML (*.html)", optional=True))


def report(text: str) -> Any:
    """REPORT."""
    return file_output("REPORT", tr("Training report"), text, "HTML (*.html)", optional=True)
