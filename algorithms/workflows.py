"""The designer workflows of the folder workflows/, offered as algorithms."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator, Optional

from qgis import utils
from qgis.core import (
    QgsMapLayer,
    QgsMessageLog,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingModelAlgorithm,
    QgsProject,
    QgsVectorLayer,
)

from . import compat, icons
from .snapshots import is_given
from .translate import tr
from .waiting import in_main_thread

FOLDER = Path(__file__).resolve().parent.parent / "workflows"

# File name without suffix -> published id; the name in the file, which the designer shows, may change.
PUBLISHED = {"land_cover_from_polygons": "landcoverfrompolygons"}


class Workflow(QgsProcessingModelAlgorithm):
    """A model with a published id of its own: QGIS would make the id out of the model's name."""

    def __init__(self, identifier: str = "") -> None:
        super().__init__()
        self._identifier = identifier

    def name(self):
        return self._identifier

    def displayName(self):
        return tr(super().name())

    def group(self):
        return tr("Workflows")

    def groupId(self):
        return "workflows"

    def icon(self):
        return icons.icon()

    def svgIconPath(self):
        return icons.PATH

    def createInstance(self):
        copy = Workflow(self._identifier)
        copy.loadVariant(self.toVariant())
        copy.setSourceFilePath(self.sourceFilePath())
        copy.setProvider(self.provider())
        definition = copy.parameterDefinition("REFERENCE")
        if definition is not None and in_main_thread():
            # For dialogs alone. None takes away what this copy has from the one before.
            definition.setGuiDefaultValueOverride(_other_polygons())
        return copy

    def checkParameterValues(self, parameters, context):
        """Refuse a map that is judged by what it was learned from: the dialog offers one layer for both."""
        learned, reference = (self._features(name, parameters, context) for name in ("POLYGONS", "REFERENCE"))
        if learned is not None and reference is not None and learned[1:] == reference[1:]:
            return False, tr(
                "REFERENCE is '{}', which POLYGONS is too: a map agrees with what it was learned from. Choose other "
                "polygons, or other features of the layer by a filter or a selection."
            ).format(reference[0])
        return super().checkParameterValues(parameters, context)

    def _features(self, name, parameters, context):
        """Return name and source of a layer, and what of it is chosen; None where there is none."""
        value, chosen = parameters.get(name), (False, "")
        if isinstance(value, QgsProcessingFeatureSourceDefinition):
            chosen = value.selectedFeaturesOnly, getattr(value, "filterExpression", "")
            value = value.source
        layer = self.parameterAsVectorLayer({name: value}, name, context) if is_given(value) else None
        return None if layer is None else (layer.name(), layer.source(), *chosen)

    def processAlgorithm(self, parameters, context, feedback):
        """Run with the defaults of the workflow's own inputs; QGIS leaves what is absent to those of the steps."""
        defaults = {
            definition.name(): definition.defaultValue()
            for definition in self.parameterDefinitions()
            if not definition.isDestination() and is_given(definition.defaultValue())
        }
        given = {name: value for name, value in parameters.items() if is_given(value)}
        return super().processAlgorithm({**defaults, **given}, context, feedback)


def _other_polygons() -> Optional[str]:
    """Return the id of a layer of polygons that dialogs do not preselect for training; None where there is none.

    QGIS preselects the active layer in every parameter that takes it, the first one by name where none is active.
    """
    layers = [layer for layer in QgsProject.instance().mapLayers().values() if _is_of_polygons(layer)]
    layers.sort(key=lambda layer: layer.name().lower())
    active = utils.iface.activeLayer() if utils.iface is not None else None
    training = active or next(iter(layers), None)
    if training not in layers:
        return None
    return next((layer.id() for layer in layers if layer.source() != training.source()), None)


def _is_of_polygons(layer: QgsMapLayer) -> bool:
    return isinstance(layer, QgsVectorLayer) and layer.geometryType() == compat.POLYGON_GEOMETRY


def load() -> Iterator[Workflow]:
    """Yield the workflows; one that cannot be read is told in QGIS's log, and the rest of the provider loads."""
    for stem, identifier in PUBLISHED.items():
        path = FOLDER / f"{stem}.model3"
        workflow = Workflow(identifier)
        if workflow.fromFile(str(path)):
            workflow.setSourceFilePath(str(path))
            yield workflow
        else:
            QgsMessageLog.logMessage(f"The workflow '{path}' cannot be read.", "Deepscape", compat.WARNING)
