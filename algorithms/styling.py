"""What outputs look like: renderers for points, footprints, class maps and confidence; set in three ways.

By a post-processor for layers that QGIS loads when the algorithm ends, on the layer itself where it lives in the
context (the next step of a model reads the classes from it), and as a sidecar ``.qml`` beside a file.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Iterable, List, Mapping, Sequence, Tuple

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsColorRampShader,
    QgsEditorWidgetSetup,
    QgsFillSymbol,
    QgsMapLayer,
    QgsMarkerSymbol,
    QgsPalettedRasterRenderer,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterShader,
    QgsRendererCategory,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsSymbol,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from ..tasks.classtable import ClassEntry, palette_colour
from . import compat
from .translate import tr

Painter = Callable[[QgsMapLayer], None]

# Okabe and Ito's colours, told apart by the colour-blind.
_SPLIT_COLOURS = {"train": "#0072b2", "validation": "#e69f00", "test": "#cc79a7", "": "#009e73"}
# Cividis: perceptually even, and the same with every kind of colour vision.
_SURENESS = ("#00204d", "#414d6b", "#7c7b78", "#bcae6c", "#ffea46")


# --- painters --------------------------------------------------------------------------------------------------------


def as_it_is(layer: QgsMapLayer) -> None:
    """Leave a layer as QGIS shows it."""


def by_class(classes: Sequence[ClassEntry], field: str = "class_id") -> Painter:
    """Return a painter that gives every class its name and colour: points, polygons or class rasters."""

    def paint(layer: QgsMapLayer) -> None:
        if isinstance(layer, QgsRasterLayer):
            palette = [QgsPalettedRasterRenderer.Class(e.value, QColor(e.colour), e.name) for e in classes]
            layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, palette))
            return
        entries = [(entry.value, entry.name, entry.colour) for entry in classes]
        layer.setRenderer(_categorised(layer, field, entries))

    return paint


def by_category(field: str, categories: Iterable[Tuple[Any, str, str]]) -> Painter:
    """Return a painter for (value, label, colour) of a field: the style of the input, carried on."""
    entries = tuple(categories)

    def paint(layer: QgsMapLayer) -> None:
        layer.setRenderer(_categorised(layer, field, entries))

    return paint


def by_split(layer: QgsMapLayer) -> None:
    """Paint features by the part that they belong to."""
    labels = {"train": tr("Training"), "validation": tr("Validation"), "test": tr("Test"), "": tr("Not split")}
    entries = [(value, labels[value], colour) for value, colour in _SPLIT_COLOURS.items()]
    layer.setRenderer(_categorised(layer, "split", entries))


def by_fold(layer: QgsMapLayer) -> None:
    """Paint features by the fold of a cross-validation that they belong to."""
    folds = sorted(layer.uniqueValues(layer.fields().indexOf("fold")))
    entries = [(fold, tr("Fold {}").format(fold), palette_colour(number)) for number, fold in enumerate(folds)]
    layer.setRenderer(_categorised(layer, "fold", entries))


def by_split_or_class(classes: Sequence[ClassEntry]) -> Painter:
    """Return a painter that shows the parts, or the classes where the samples were not split."""

    def paint(layer: QgsMapLayer) -> None:
        parts = layer.uniqueValues(layer.fields().indexOf("split"))
        (by_split if any(part in ("train", "validation", "test") for part in parts) else by_class(classes))(layer)

    return paint


def blind(classes: Sequence[ClassEntry]) -> Painter:
    """Return a painter for points to be labelled: all alike, class names to choose from, no word of strata."""

    def paint(layer: QgsMapLayer) -> None:
        layer.setRenderer(QgsSingleSymbolRenderer(_symbol(layer, "#ffd700")))
        names = [{f"{entry.value} {entry.name}": entry.value} for entry in classes]
        fields = layer.fields()
        for field in ("stratum", "weight"):
            layer.setEditorWidgetSetup(fields.indexOf(field), QgsEditorWidgetSetup("Hidden", {}))
        layer.setEditorWidgetSetup(fields.indexOf("reference"), QgsEditorWidgetSetup("ValueMap", {"map": names}))

    return paint


def confidence(layer: QgsMapLayer) -> None:
    """Paint a raster of confidence or margin from 0 to 1 in one even ramp, light where the model is sure."""
    _ramp(layer, _SURENESS)


def entropy(layer: QgsMapLayer) -> None:
    """Paint a raster of entropy from 0 to 1 in one even ramp, light where the model is sure."""
    _ramp(layer, _SURENESS[::-1])


def probability(areas: Mapping[str, Any]) -> Painter:
    """Return a painter for probabilities, one band per class: it shows that of the class with the most pixels.

    Args:
        areas: class value -> its pixels, in the order of the bands (`ClassifyResult.class_areas`).
    """
    pixels = [entry["pixels"] for entry in areas.values()]

    def paint(layer: QgsMapLayer) -> None:
        band = 1 + pixels.index(max(pixels)) if pixels else 1
        _ramp(layer, _SURENESS, min(band, layer.bandCount()))

    return paint


def _ramp(layer: QgsMapLayer, colours: Sequence[str], band: int = 1) -> None:
    items = [
        QgsColorRampShader.ColorRampItem(
            number / (len(colours) - 1), QColor(colour), f"{number / (len(colours) - 1):g}"
        )
        for number, colour in enumerate(colours)
    ]
    function = QgsColorRampShader(0.0, 1.0, None, compat.RAMP_INTERPOLATED, compat.CLASSIFY_CONTINUOUS)
    function.setColorRampItemList(items)
    shader = QgsRasterShader(0.0, 1.0)
    shader.setRasterShaderFunction(function)
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), band, shader)
    renderer.setClassificationMin(0.0)
    renderer.setClassificationMax(1.0)
    layer.setRenderer(renderer)


def _categorised(
    layer: QgsVectorLayer, field: str, entries: Iterable[Tuple[Any, str, str]]
) -> QgsCategorizedSymbolRenderer:
    if layer.geometryType() == compat.POLYGON_GEOMETRY:
        # Of the layer, not of the symbol: footprints overlap, and many thin veils would hide the image.
        layer.setOpacity(0.6)
    return QgsCategorizedSymbolRenderer(
        field, [QgsRendererCategory(value, _symbol(layer, colour), label) for value, label, colour in entries]
    )


def _symbol(layer: QgsVectorLayer, colour: str) -> QgsSymbol:
    """Return small points that do not hide the image, or areas."""
    if layer.geometryType() == compat.POINT_GEOMETRY:
        return QgsMarkerSymbol.createSimple(
            {"name": "circle", "color": colour, "outline_color": "#232323", "outline_width": "0.1", "size": "1.6"}
        )
    if layer.geometryType() == compat.POLYGON_GEOMETRY:
        return QgsFillSymbol.createSimple({"color": colour, "outline_color": "#232323", "outline_width": "0.2"})
    symbol = QgsSymbol.defaultSymbol(layer.geometryType())
    symbol.setColor(QColor(colour))
    return symbol


# --- the three ways --------------------------------------------------------------------------------------------------


class _PostProcessor(QgsProcessingLayerPostProcessorInterface):
    """Paints a layer that QGIS has loaded, in the main thread, and shows its legend."""

    def __init__(self, painter: Painter, shown: bool) -> None:
        super().__init__()
        self._painter = painter
        self._shown = shown

    def postProcessLayer(self, layer, context, feedback):
        if layer is not None and layer.isValid():
            self._painter(layer)
            layer.triggerRepaint()
            layer.emitStyleChanged()
            node = context.project().layerTreeRoot().findLayer(layer.id()) if context.project() else None
            if node is not None:
                node.setItemVisibilityChecked(self._shown)
                # A new node is expanded, but the panel may show it closed where it lies above a layer that was there
                # before; and the panel is told of changes only (seen on 3.22).
                node.setExpanded(not self._shown)
                node.setExpanded(self._shown)


_RASTERS = (".tif", ".tiff", ".TIF", ".TIFF")

# QGIS keeps a bare pointer: a reference on the algorithm would die with the clone that ran, before the layer is loaded.
# They stay after their work, for QGIS may still hold the pointer; the oldest go when there are many.
_ALIVE: List[_PostProcessor] = []
_MOST_ALIVE = 1000


def style_when_loaded(destination: str, painter: Painter, context: Any, shown: bool = True) -> None:
    """Have a layer painted when it is loaded; one that is not ``shown`` is in the list, unchecked."""
    if not context.willLoadLayerOnCompletion(destination):
        return
    details = context.layerToLoadOnCompletionDetails(destination)
    processor = _PostProcessor(painter, shown)
    _ALIVE.append(processor)
    del _ALIVE[:-_MOST_ALIVE]
    details.setPostProcessor(processor)


def name_when_loaded(destination: str, plain: Sequence[str], better: str, context: Any) -> None:
    """Name a layer that is loaded, unless the user named it: several maps must not all be "Class map".

    ``plain`` are the names that QGIS gives: the output's title, or in a model the name of the output itself.
    """
    if context.willLoadLayerOnCompletion(destination):
        details = context.layerToLoadOnCompletionDetails(destination)
        if details.name in plain:
            details.name = better


def load_with_style(destinations: Iterable[str], context: Any) -> None:
    """Load rasters that QGIS is about to load, and would load without their style; it takes them from the context."""
    for destination in destinations:
        if context.willLoadLayerOnCompletion(destination):
            layer = _styled_raster(destination, context.layerToLoadOnCompletionDetails(destination).name)
            if layer.isValid():
                context.temporaryLayerStore().addMapLayer(layer)


def _styled_raster(path: str, name: str) -> QgsRasterLayer:
    """Return a raster with the style that the engine wrote beside it.

    Without it, QGIS stretches the contrast of the first three bands. Where one holds a single value, as the probability
    of a class that a part of a scene lacks, GDAL then complains on stderr that "dfMax should be strictly greater than
    dfMin" (seen on 3.22).
    """
    return QgsRasterLayer(path, name)


def style_in_context(destination: str, painter: Painter, context: Any) -> None:
    """Paint a layer that lives in the context (a memory layer), so that the next step of a model sees its classes."""
    layer = context.temporaryLayerStore().mapLayer(destination)
    if layer is not None:
        painter(layer)


def save_sidecar(destination: str, painter: Painter, is_raster: bool) -> None:
    """Write the ``.qml`` beside a file, so that it is shown the same when it is loaded by hand.

    A raster of the same name keeps its own, which QGIS finds by the name before the suffix: ``map.gpkg`` beside
    ``map.tif`` holds its style itself. Elsewhere it does not, for that is a second table in the file.
    """
    path = destination.split("|")[0]
    if not os.path.isfile(path):
        return
    layer = _styled_raster(path, "style") if is_raster else QgsVectorLayer(destination, "style", "ogr")
    if layer.isValid():
        painter(layer)
        stem, suffix = os.path.splitext(path)
        if suffix.lower() == ".gpkg" and any(os.path.isfile(stem + raster) for raster in _RASTERS):
            layer.saveStyleToDatabase(os.path.basename(stem), "", True, "")
        else:
            layer.saveNamedStyle(stem + ".qml")
