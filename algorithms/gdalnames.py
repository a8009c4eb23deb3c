"""Rasters that are no files of their own, by GDAL's names: inside an archive (``/vsizip/...``), or in the web."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterable, Mapping

from osgeo import gdal
from qgis.core import (
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsRasterLayer,
)

from . import compat

# Addresses, GDAL's names of files in the web, and the sources of web services.
_IN_THE_WEB = re.compile(r".*(?:\b(?:https?|ftp|s3|gs)://|/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs)|\burl=)", re.I)


def is_in_the_web(name: str) -> bool:
    """Tell whether a name is an address, or a file at one."""
    return _IN_THE_WEB.match(name) is not None


def is_local(name: str) -> bool:
    """Tell whether a name is GDAL's of what lies on this machine, such as a file in an archive."""
    return name.startswith("/vsi") and not is_in_the_web(name)


def exists(path: str) -> bool:
    """Tell whether there is a file of this name, also in an archive."""
    return os.path.exists(path) or (is_local(path) and gdal.VSIStatL(path) is not None)


def opened(definitions: Iterable[Any], parameters: Mapping[str, Any], context: Any) -> Dict[str, Any]:
    """Return parameters with the layers of rasters in archives in place of their names.

    By their names QGIS opens files alone (seen on 3.22), while its layers may be any that GDAL opens. Names of layers
    that QGIS has open, and of what is no raster, stay as they are.
    """
    changed = dict(parameters)
    for definition in definitions:
        value = parameters.get(definition.name())
        if _takes_rasters(definition):
            several = isinstance(value, (list, tuple))
            changed[definition.name()] = [_opened(v, context) for v in value] if several else _opened(value, context)
    return changed


def _takes_rasters(definition: Any) -> bool:
    if isinstance(definition, QgsProcessingParameterMultipleLayers):
        return bool(definition.layerType() == compat.SOURCE_RASTER)
    return isinstance(definition, (QgsProcessingParameterRasterLayer, QgsProcessingParameterMapLayer))


def _opened(value: Any, context: Any) -> Any:
    if not (isinstance(value, str) and is_local(value)) or QgsProcessingUtils.mapLayerFromString(value, context, False):
        return value
    layer = QgsRasterLayer(value, os.path.splitext(os.path.basename(value))[0])
    return layer if layer.isValid() else value
