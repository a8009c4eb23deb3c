"""Features in and out of QGIS: exports of layers that are no plain file, and copies into the user's sinks."""

from __future__ import annotations

import os
from typing import Any, Iterable

from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsFeatureRequest,
    QgsField,
    QgsFields,
    QgsProcessingFeatureSource,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from ..tasks.errors import BadInput, DiskFull, JobCancelled
from ..tasks.jobs import VectorSource
from . import compat
from .destinations import destination_text
from .translate import tr

_ID_FIELDS = ("fid", "feature_id", "feature_id_")


def export(source: QgsProcessingFeatureSource, path: str, layer: str, label: str, feedback: Any) -> VectorSource:
    """Write a source's features into a GeoPackage layer, their ids kept: the engine reports polygons by them.

    Args:
        source: the features.
        path: the GeoPackage; a layer is added to it when it exists.
        layer: name of the layer in it.
        label: what the user calls the source.
        feedback: polled for cancel, and told the progress.

    Raises:
        BadInput: the file cannot be written.
        JobCancelled: the user cancelled.
    """
    feedback.setProgressText(tr("Exporting '{}' for the engine").format(label))
    names = {name.lower() for name in source.fields().names()}
    identifier = next(name for name in _ID_FIELDS if name not in names)
    fields = QgsFields(source.fields())
    fields.append(QgsField(identifier, compat.long_integer()))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = layer
    options.layerOptions = [f"FID={identifier}"]
    if os.path.exists(path):
        options.actionOnExistingFile = QgsVectorFileWriter.ActionOnExistingFile.CreateOrOverwriteLayer
    writer = QgsVectorFileWriter.create(
        path, fields, source.wkbType(), source.sourceCrs(), QgsCoordinateTransformContext(), options
    )
    if writer.hasError() != compat.WRITER_NO_ERROR:
        raise _writing_error(path, writer.errorMessage())
    for feature in _with_ids(source, feedback):
        row = QgsFeature(fields, feature.id())
        row.setGeometry(feature.geometry())
        row.setAttributes([*feature.attributes(), feature.id()])
        if not writer.addFeature(row, compat.FAST_INSERT):
            raise _writing_error(path, writer.errorMessage())
    del writer  # closes the file
    return VectorSource(path=path, layer=layer, label=label)


def _with_ids(source: QgsProcessingFeatureSource, feedback: Any) -> Iterable[QgsFeature]:
    """Yield the features in their order; unsaved new ones (their ids are negative) last, with ids that are free.

    Without Processing's own check: it would stop at an invalid geometry, which the engine repairs.
    """
    total = max(1, source.featureCount())
    highest = 0
    unsaved = []
    for number, feature in enumerate(source.getFeatures(QgsFeatureRequest(), compat.SKIP_GEOMETRY_CHECKS)):
        if feedback.isCanceled():
            raise JobCancelled()
        if number % 1000 == 0:
            feedback.setProgress(100 * number / total)
        if feature.id() < 0:
            unsaved.append(feature)
            continue
        highest = max(highest, feature.id())
        yield feature
    for number, feature in enumerate(reversed(unsaved), start=1):
        feature.setId(highest + number)
        yield feature


def _writing_error(path: str, text: str) -> Exception:
    if "disk" in text.lower() and "full" in text.lower():
        return DiskFull(f"No room is left to write '{path}'.", "Free space or choose another folder.")
    return BadInput(f"'{path}' cannot be written: {text.strip().rstrip('.')}.", "Choose another folder.")


def copy_to_sink(algorithm: Any, parameters: Any, name: str, context: Any, feedback: Any, path: str) -> str:
    """Copy the layer that the engine wrote into the user's sink, and return the sink's destination.

    Raises:
        BadInput: the sink cannot be made or filled.
        JobCancelled: the user cancelled; a file that was begun is removed.
    """
    layer = QgsVectorLayer(path, name, "ogr")
    if not layer.isValid():
        raise BadInput(f"The engine's layer '{path}' cannot be read.", "Run the algorithm again.")
    keys = set(layer.primaryKeyAttributes())
    kept = [index for index in range(layer.fields().count()) if index not in keys]
    fields = QgsFields()
    for index in kept:
        fields.append(layer.fields().at(index))
    sink, destination = algorithm.parameterAsSink(parameters, name, context, fields, layer.wkbType(), layer.crs())
    if sink is None:
        raise BadInput(
            f"{name} '{destination_text(parameters.get(name))}' cannot be written.",
            "Choose another file, or close it where it is open.",
        )
    feedback.setProgressText(tr("Writing {}").format(name))
    total = max(1, layer.featureCount())
    try:
        for number, feature in enumerate(layer.getFeatures()):
            if number % 200 == 0:
                if feedback.isCanceled():
                    raise JobCancelled()
                feedback.setProgress(100 * number / total)
            row = QgsFeature(fields)
            row.setGeometry(feature.geometry())
            attributes = feature.attributes()
            row.setAttributes([attributes[index] for index in kept])
            if not sink.addFeature(row, compat.FAST_INSERT):
                raise BadInput(f"{name} cannot be written: {sink.lastError()}.", "Choose another output.")
    except (BadInput, JobCancelled):
        del sink
        _discard(destination)
        raise
    del sink  # closes a file
    return str(destination)


def _discard(destination: str) -> None:
    """Remove a file that was begun; a table in a database is the database's own."""
    if os.path.isfile(destination):
        os.remove(destination)
