"""What `prepareAlgorithm` keeps of the user's layers: plain values, and sources that other threads may read.

It may run on a background thread (children of models do), so nothing here touches project, canvas or widgets.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Optional, Tuple

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFeatureRequest,
    QgsPalettedRasterRenderer,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProviderRegistry,
    QgsSingleBandPseudoColorRenderer,
    QgsVectorLayer,
)

from ..tasks.classtable import ClassEntry
from ..tasks.errors import BadInput
from ..tasks.jobs import VectorSource
from . import compat, rasterexport


@dataclass(frozen=True)
class RasterSnapshot:
    """A raster layer: what GDAL opens, its CRS where the file has none, and the classes that its style shows.

    ``options`` are those that it was opened with. It is ``foreign`` where the engine cannot open it so.
    """

    path: str
    crs: str
    label: str
    classes: Tuple[ClassEntry, ...]
    overridden_crs: str = ""
    options: Tuple[str, ...] = ()
    foreign: bool = False


@dataclass(frozen=True)
class VectorSnapshot:
    """A vector source: ``file`` where its path says all, else it must be exported from ``source``.

    Attributes:
        source: snapshot of the features; readable from the algorithm's thread.
        file: None when the layer is no plain file, is being edited, or only a part of it is meant.
        label: what the user calls it.
        categories: (value, label, colour) of its categorised renderer.
        category_field: the field that these categories are values of.
    """

    source: QgsProcessingFeatureSource
    file: Optional[VectorSource]
    label: str
    categories: Tuple[Tuple[Any, str, str], ...]
    category_field: str

    def shows(self, field: str) -> bool:
        """Tell whether the source has a field of this name."""
        return field in self.source.fields().names()

    def classes_of(self, field: str) -> Tuple[ClassEntry, ...]:
        """Return the classes that the style shows for a field; none when it shows another one.

        A class is its number as well as its name: a style by the one is that of the other, if each number has one name.
        """
        if field and field == self.category_field:
            return tuple(_class_entries(self.categories))
        return tuple(self._classes_of_pair(field))

    def _classes_of_pair(self, field: str) -> list[ClassEntry]:
        """Return the classes of a field beside that of the style, where one holds numbers and the other their names."""
        if not (self.categories and self.shows(field) and self.shows(self.category_field)):
            return []
        by_number = all(_is_number(value) for value, _, _ in self.categories)
        if not _is_name(field if by_number else self.category_field):
            return []
        pairs = self._pairs(field)
        if any(_is_number(own) == by_number for own in pairs):
            return []
        if by_number:
            named = {shown: own for own, shown in pairs.items()}
            found = [(value, named[str(value)], colour) for value, _, colour in self.categories if str(value) in named]
        else:
            shown = {str(value): (label, colour) for value, label, colour in self.categories}
            found = [(own, *shown[text]) for own, text in pairs.items() if text in shown]
        return _class_entries(found)

    def _pairs(self, field: str) -> dict[str, str]:
        """Return what a field holds -> what that of the style holds; nothing unless each value has one of the other."""
        request = QgsFeatureRequest().setFlags(compat.NO_GEOMETRY)
        request.setSubsetOfAttributes([field, self.category_field], self.source.fields())
        pairs: dict[str, str] = {}
        others: dict[str, str] = {}
        for feature in self.source.getFeatures(request, compat.SKIP_GEOMETRY_CHECKS):
            own, shown = feature[field], feature[self.category_field]
            if not is_given(own) or not is_given(shown):
                continue
            own, shown = str(own).strip(), str(shown).strip()
            if pairs.setdefault(own, shown) != shown or others.setdefault(shown, own) != own:
                return {}
        return pairs


def _is_number(value: Any) -> bool:
    return re.fullmatch(r"-?\d+(\.0*)?", str(value)) is not None


def _is_name(field: str) -> bool:
    """Tell whether a field holds names by its own, as the engine finds them beside a class field."""
    return "name" in field.lower() or "label" in field.lower()


def is_given(value: Any) -> bool:
    """Tell whether a parameter has a value: not None, NULL, an empty text or an empty list."""
    return not compat.is_null(value) and not (isinstance(value, (str, list, tuple)) and len(value) == 0)


# --- rasters ---------------------------------------------------------------------------------------------------------


def raster_snapshot(layer: Any, name: str, context: Any) -> RasterSnapshot:
    """Take a snapshot of a raster layer.

    Raises:
        BadInput: the layer does not come from GDAL (a web service, a database).
    """
    provider = layer.providerType()
    if provider != "gdal":
        raise BadInput(
            f"{name} '{layer.name()}' is no file: it comes from a web service or a database ('{provider}').",
            "Save the part that you need as GeoTIFF (Export > Save As...) and use that.",
        )
    # A source with options is no path: "file.pdf|option:DPI=300".
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    options = tuple(str(option) for option in parts.get("openOptions") or ())
    path = str(parts.get("path") or "") if options else layer.source().split("|")[0]
    # Also where a colour table gave it a palette: the style is what the user, or the algorithm before, wrote.
    _load_stored_style(layer, context)
    own, shown = layer.dataProvider().crs(), layer.crs()
    replaced = own.isValid() and shown.isValid() and own != shown
    return RasterSnapshot(
        path=path,
        crs=shown.toWkt() if shown.isValid() and not own.isValid() else "",
        label=layer.name(),
        classes=tuple(_raster_classes(layer.renderer())),
        overridden_crs=shown.userFriendlyIdentifier() if replaced else "",
        options=options,
        foreign=bool(options) or rasterexport.is_foreign(path),
    )


def _raster_classes(renderer: Any) -> list[ClassEntry]:
    """Return the classes of a paletted renderer, or of one with exact colours."""
    if isinstance(renderer, QgsPalettedRasterRenderer):
        items = [(item.value, item.label, item.color.name()) for item in renderer.classes()]
        return _class_entries([item for item in items if not _is_empty_slot(*item)])
    if isinstance(renderer, QgsSingleBandPseudoColorRenderer) and renderer.shader() is not None:
        function = renderer.shader().rasterShaderFunction()
        if hasattr(function, "colorRampItemList") and function.colorRampType() == compat.RAMP_EXACT:
            return _class_entries([(i.value, i.label, i.color.name()) for i in function.colorRampItemList()])
    return []


def _is_empty_slot(value: Any, label: str, colour: str) -> bool:
    """Tell whether a palette's entry only fills a colour table, which always has 256: black, named by its number."""
    return colour == "#000000" and label in ("", f"{value:g}")


def _class_entries(categories: Any) -> list[ClassEntry]:
    """Return class entries of (value, label, colour); as `read_qml` does for the same style in a file.

    A category of a text field has no number of its own: it takes its place in the list, counted from 1, and its text as
    the name, by which the engine finds it again.
    """
    entries: dict[int, ClassEntry] = {}
    for number, (value, label, colour) in enumerate(categories, start=1):
        text = str(value)
        key = int(float(text)) if _is_number(text) else number
        entries.setdefault(key, ClassEntry(key, (label or text) if _is_number(text) else text, colour))
    return [entries[key] for key in sorted(entries)]


def _load_stored_style(layer: Any, context: Any) -> None:
    """Load the stored default style of a layer that Processing opened by its path; it does not do so itself.

    Only such layers: a layer of the project has the style that the user gave it, and belongs to the main thread.
    """
    opened = context.temporaryLayerStore().mapLayer(layer.id()) is not None
    if opened and os.path.exists(layer.source().split("|")[0]):
        layer.loadDefaultStyle()


# --- vectors ---------------------------------------------------------------------------------------------------------


def vector_snapshot(algorithm: Any, parameters: Any, name: str, context: Any) -> Optional[VectorSnapshot]:
    """Take a snapshot of a vector source; None when the parameter is not given."""
    if not is_given(parameters.get(name)):
        return None
    source = algorithm.parameterAsSource(parameters, name, context)
    if source is None:
        raise BadInput(f"{name} '{parameters[name]}' cannot be read as a vector layer.", "Choose another layer.")
    layer = algorithm.parameterAsVectorLayer(parameters, name, context)
    if layer is None:
        return VectorSnapshot(source, None, source.sourceName(), (), "")
    if not isinstance(layer.renderer(), QgsCategorizedSymbolRenderer):
        _load_stored_style(layer, context)
    field, categories = _categories(layer.renderer())
    plain = not _is_part(parameters[name]) and _is_plain_file(layer)
    return VectorSnapshot(source, _file_source(layer) if plain else None, layer.name(), categories, field)


def _is_part(value: Any) -> bool:
    """Tell whether only a part of the layer is meant: the selection, a filter or the first features."""
    if not isinstance(value, QgsProcessingFeatureSourceDefinition):
        return False
    return (
        value.selectedFeaturesOnly
        or getattr(value, "featureLimit", -1) >= 0
        or bool(getattr(value, "filterExpression", ""))
    )


def _is_plain_file(layer: QgsVectorLayer) -> bool:
    """Tell whether the file says all that the layer shows: no edits, filter, joins, virtual fields or other CRS."""
    provider = layer.dataProvider()
    if layer.providerType() != "ogr" or layer.isEditable() or layer.subsetString() or layer.vectorJoins():
        return False
    if layer.fields().names() != provider.fields().names():
        return False
    if provider.crs().isValid() and layer.crs() != provider.crs():
        return False
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    if parts.get("subset") or parts.get("geometryType") or parts.get("openOptions") or parts.get("layerId"):
        return False
    return os.path.isfile(str(parts.get("path") or ""))


def _file_source(layer: QgsVectorLayer) -> VectorSource:
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    name = parts.get("layerName")
    missing = layer.crs().isValid() and not layer.dataProvider().crs().isValid()
    return VectorSource(
        path=str(parts["path"]),
        layer="" if compat.is_null(name) else str(name),
        crs=layer.crs().toWkt() if missing else "",
        label=layer.name(),
    )


def _categories(renderer: Any) -> Tuple[str, Tuple[Tuple[Any, str, str], ...]]:
    """Return the field and the (value, label, colour) of a categorised renderer; nothing for any other."""
    if not isinstance(renderer, QgsCategorizedSymbolRenderer):
        return "", ()
    found = []
    for category in renderer.categories():
        value = category.value()
        if is_given(value) and not isinstance(value, list) and category.symbol() is not None:
            found.append((value, category.label(), category.symbol().color().name()))
    return renderer.classAttribute().strip().strip('"'), tuple(found)
