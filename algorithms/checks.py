"""Sentences for wrong parameters, before any work: the parameter, its value, the valid values and the remedy.

QGIS's own check says only "Incorrect parameter value for ...".
"""

from __future__ import annotations

import math
import os
from typing import Any, Callable, Dict, List, Mapping

from qgis.core import (
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProperty,
)

from ..tasks.suffixes import kind_suffix
from . import compat, gdalnames, rasterexport
from .destinations import destination_text, is_file_destination, suffix_of
from .snapshots import is_given
from .translate import tr


def complaint(algorithm: Any, parameters: Mapping[str, Any], context: Any) -> str:
    """Return the sentence for the first wrong parameter; empty when all can be used."""
    parameters = gdalnames.opened(algorithm.parameterDefinitions(), parameters, context)
    for definition in algorithm.parameterDefinitions():
        value = parameters.get(definition.name())
        if not is_given(value):
            value = definition.defaultValue()
        optional = bool(definition.flags() & compat.OPTIONAL)
        if not is_given(value):
            if optional:
                continue
            return tr("{0} ({1}) is missing. Give a value for it.").format(definition.name(), definition.description())
        check = _CHECKS.get(definition.type())
        if definition.isDestination():
            check = _destination
        # An expression has its value only when the algorithm runs.
        if isinstance(value, QgsProperty):
            continue
        found = _several(definition, value) or (check or _any)(algorithm, definition, value, parameters, context)
        if found:
            return found
    return ""


def _several(definition: Any, value: Any) -> str:
    """Return the sentence for a list where one value is meant, as qgis_process makes of a parameter given twice.

    QGIS reads an empty text from it, and no text of a list of bands.
    """
    several = getattr(definition, "allowMultiple", bool)()
    if not isinstance(value, (list, tuple)) or several or definition.type() not in _SINGLE:
        return ""
    return tr("{0} has several values ({1}). Give it once, as one text.").format(
        definition.name(), ", ".join(str(each) for each in value)
    )


def _any(algorithm, definition, value, parameters, context) -> str:
    if definition.checkValueIsAcceptable(value, context):
        return ""
    return tr("{0} '{1}' cannot be used. Give another value.").format(definition.name(), value)


def chosen_words(definition: Any, value: Any) -> List[Any]:
    """Return the words of a value of an enumeration; what names no option stays as it is.

    An option may be given by its number, counted from 0: the help of qgis_process offers that, although QGIS knows no
    numbers where the options are words.
    """
    options = definition.options()
    given = [value]
    if definition.allowMultiple():
        given = list(value) if isinstance(value, (list, tuple)) else str(value).split(",")
    by_number = {str(number): word for number, word in enumerate(options)}
    return [each if each in options else by_number.get(str(each).strip(), each) for each in given]


def _enum(algorithm, definition, value, parameters, context) -> str:
    options = definition.options()
    wrong = next((word for word in chosen_words(definition, value) if word not in options), None)
    if wrong is None:
        return ""
    return tr("{0} '{1}' is not a valid choice. Valid choices: {2}.").format(
        definition.name(), wrong, ", ".join(options)
    )


def _number(algorithm, definition, value, parameters, context) -> str:
    name, whole = definition.name(), definition.dataType() == compat.INTEGER
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        number = math.nan
    shown = str(value).strip()
    if math.isnan(number):
        return tr("{0} '{1}' is no number. Give a number such as {2}.").format(name, shown, "1" if whole else "0.5")
    lowest, highest = definition.minimum(), definition.maximum()
    if whole:
        # What does not fit 32 bits QGIS hands over as 0.
        lowest, highest = max(lowest, -(2**31)), min(highest, 2**31 - 1)
    if number < lowest or number == -math.inf:
        return tr("{0} is {1}, less than {2}. Give {2} or more.").format(name, shown, _plain(lowest))
    if number > highest or number == math.inf:
        return tr("{0} is {1}, more than {2}. Give {2} or less.").format(name, shown, _plain(highest))
    if whole and number != int(number):
        return tr("{0} is {1}, which is no whole number. Give a whole number.").format(name, shown)
    return ""


def _plain(number: float) -> str:
    """Return a limit without an exponent where it has up to ten digits."""
    return f"{number:.10g}"


def _file(algorithm, definition, value, parameters, context) -> str:
    path = str(value)
    is_folder = definition.behavior() == compat.FOLDER
    if os.path.isdir(path) if is_folder else os.path.isfile(path):
        return ""
    if os.path.exists(path):
        what = tr("is a file, not a folder. Choose a folder.") if is_folder else tr("is a folder. Choose a file.")
    else:
        what = tr("does not exist. Check the path.")
    return f"{definition.name()} '{path}' {what}"


def _raster(algorithm, definition, value, parameters, context) -> str:
    if algorithm.parameterAsRasterLayer(parameters, definition.name(), context) is not None:
        return ""
    return _unreadable_raster(definition.name(), value)


def _multiple(algorithm, definition, value, parameters, context) -> str:
    values = value if isinstance(value, (list, tuple)) else [value]
    if definition.layerType() == compat.SOURCE_FILE:
        paths = algorithm.parameterAsFileList(parameters, definition.name(), context)
        # A patch dataset may be named by its folder.
        wrong = next((path for path in paths if not os.path.exists(path)), None)
        return "" if wrong is None else tr("{0} '{1}' does not exist. Check the path.").format(definition.name(), wrong)
    layers = algorithm.parameterAsLayerList(parameters, definition.name(), context)
    if len(layers) == len(values):
        return ""
    missing = next((v for v in values if isinstance(v, str) and not os.path.exists(v)), values[0])
    return _unreadable_raster(definition.name(), missing)


def _source(algorithm, definition, value, parameters, context) -> str:
    if algorithm.parameterAsSource(parameters, definition.name(), context) is not None:
        return ""
    if isinstance(value, QgsProcessingFeatureSourceDefinition):
        value = destination_text(value.source)
    return _unreadable(definition.name(), value, tr("vector layer"))


def _unreadable_raster(name: str, value: Any) -> str:
    """Return why a raster cannot be used: by their names QGIS opens files alone, and of these those of one raster."""
    if isinstance(value, str) and not os.path.exists(value):
        if gdalnames.is_in_the_web(value):
            return tr(
                "{0} '{1}' lies in the web, where rasters are not read by their address. Download the file and use "
                "that, or add it to QGIS and save the part that you need as GeoTIFF (Export > Save As...)."
            ).format(name, value)
        if ":" in value[2:] and rasterexport.opens(value):
            return tr(
                "{0} '{1}' is no file, and by their names QGIS opens files alone. Add it to QGIS and choose its layer, "
                "or make a GeoTIFF of it: gdal_translate '{1}' one.tif"
            ).format(name, value)
    parts = rasterexport.parts_of(value) if isinstance(value, str) and os.path.isfile(value) else []
    if parts:
        return tr(
            "{0} '{1}' holds several rasters: {2}. Add it to QGIS and choose the layer of one of them, or make a "
            "GeoTIFF of it: gdal_translate '{3}' one.tif"
        ).format(name, value, ", ".join(parts[:2]) + (", ..." if len(parts) > 2 else ""), parts[0])
    return _unreadable(name, value, tr("raster"))


def _unreadable(name: str, value: Any, what: str) -> str:
    shown = value.name() if hasattr(value, "name") else str(value)
    path = shown.split("|")[0]
    if isinstance(value, str) and (os.sep in path or "." in path) and not gdalnames.exists(path):
        return tr("{0} '{1}' does not exist. Check the path.").format(name, shown)
    return tr("{0} '{1}' cannot be read as a {2}. Choose another one.").format(name, shown, what)


def _field(algorithm, definition, value, parameters, context) -> str:
    parent = definition.parentLayerParameterName()
    if not is_given(parameters.get(parent)):
        return ""
    if definition.flags() & compat.OPTIONAL and not is_given(parameters.get(definition.name())):
        # The default of an optional field holds where the layer has it; what is missed, the job says.
        return ""
    source = algorithm.parameterAsSource(parameters, parent, context)
    wanted = value if isinstance(value, (list, tuple)) else [value]
    if source is None:
        return ""
    fields = source.fields().names()
    missing = next((name for name in wanted if name not in fields), None)
    if missing is None:
        return ""
    return tr("{0}: '{1}' has no field '{2}'. Its fields are: {3}.").format(
        definition.name(), source.sourceName(), missing, ", ".join(fields) or tr("none")
    )


def _extent(algorithm, definition, value, parameters, context) -> str:
    if not algorithm.parameterAsExtent(parameters, definition.name(), context).isNull():
        return ""
    return tr("{0} '{1}' is no extent. Write it as xmin,xmax,ymin,ymax [EPSG:4326].").format(definition.name(), value)


def _destination(algorithm, definition, value, parameters, context) -> str:
    text = destination_text(value)
    if not is_file_destination(text):
        return ""
    name, suffix = definition.name(), suffix_of(definition)
    if suffix and os.path.isdir(text):
        return tr("{0} '{1}' is a folder. Give a file name in it.").format(name, text)
    if suffix and os.path.exists(text) and not os.path.isfile(text):
        # A file of that name and a suffix would be written beside /dev/null.
        return tr("{0} '{1}' is a device. Give a file name that ends in {2}.").format(name, text, suffix)
    kind = kind_suffix(text)
    if suffix and kind and kind not in (suffix, *_ALSO.get(suffix, ())):
        return tr("{0} '{1}' ends in {2}, but the file is written as {3}. Give a name that ends in {3}.").format(
            name, text, kind, suffix
        )
    supported, reason = algorithm.provider().isSupportedOutputValue(value, definition, context)
    if not supported and not suffix:
        return tr("{0} '{1}' cannot be written: {2}").format(name, text, reason)
    folder = os.path.dirname(os.path.abspath(text))
    if os.path.isdir(folder) or isinstance(definition, QgsProcessingParameterFolderDestination):
        return ""
    return tr("The folder '{0}' of {1} does not exist. Create it or choose another folder.").format(folder, name)


_SINGLE = frozenset(
    kind.typeName()
    for kind in (
        QgsProcessingParameterBoolean, QgsProcessingParameterEnum, QgsProcessingParameterExtent,
        QgsProcessingParameterFile, QgsProcessingParameterNumber, QgsProcessingParameterRasterLayer,
        QgsProcessingParameterString,
    )
)  # fmt: skip

_ALSO = {".tif": (".tiff",), ".html": (".htm",)}

_CHECKS: Dict[str, Callable[..., str]] = {
    QgsProcessingParameterEnum.typeName(): _enum,
    QgsProcessingParameterNumber.typeName(): _number,
    QgsProcessingParameterFile.typeName(): _file,
    QgsProcessingParameterRasterLayer.typeName(): _raster,
    QgsProcessingParameterMultipleLayers.typeName(): _multiple,
    QgsProcessingParameterFeatureSource.typeName(): _source,
    QgsProcessingParameterField.typeName(): _field,
    QgsProcessingParameterExtent.typeName(): _extent,
}
