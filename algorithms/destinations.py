"""Where outputs go, as the user gave it: a path, a temporary output, a layer in memory, a table in a database."""

from __future__ import annotations

import os
from typing import Any, Dict

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
    QgsProperty,
)

from ..tasks.suffixes import kind_suffix
from . import compat
from .snapshots import is_given


def destination_text(value: Any) -> str:
    """Return a destination that is a plain text; empty for an expression, and for one that is not given."""
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink
    if isinstance(value, QgsProperty):
        value = value.staticValue() if value.propertyType() == compat.STATIC_PROPERTY else ""
    return str(value) if is_given(value) else ""


def is_file_destination(text: str) -> bool:
    """Tell whether a destination is a path that the user chose: not temporary, in memory or in a database."""
    if not text or text == QgsProcessing.TEMPORARY_OUTPUT or text.startswith("memory:"):
        return False
    head = text.split(":", 1)[0] if ":" in text else ""
    return len(head) <= 1 or os.path.isabs(text)


def suffix_of(definition: Any) -> str:
    """Return the suffix of the files that the engine writes for an output (".tif"); empty for a folder or sink."""
    if isinstance(definition, QgsProcessingParameterRasterDestination):
        return ".tif"
    extension = (
        definition.defaultFileExtension() if isinstance(definition, QgsProcessingParameterFileDestination) else ""
    )
    return f".{extension}" if extension else ""


def complete_destination(parameters: Dict[str, Any], definition: Any) -> None:
    """Make a destination's path absolute and add the suffix that it lacks, in place."""
    name = definition.name()
    value = parameters.get(name)
    text = destination_text(value)
    if not is_file_destination(text):
        return
    path, suffix = os.path.abspath(text), suffix_of(definition)
    # A folder is refused as it was given: with a suffix the file would lie beside it.
    if suffix and not kind_suffix(path) and not os.path.isdir(path):
        path += suffix
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        changed = QgsProcessingOutputLayerDefinition(value)
        changed.sink = QgsProperty.fromValue(path)
        parameters[name] = changed
    else:
        parameters[name] = path
