"""Features in and out of QGIS: exports of layers that are no plain file, and copies into the user's sinks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from typing import Any, Iterable, Iterator

from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsFeatureRequest,
    QgsField,
    QgsFields,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingOutputLayerDefinition,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from ..tasks.errors import BadInput, DiskFull, JobCancelled
from ..tasks.jobs import VectorSource
from . import compat
from .destinations import destination_text, is_file_destination
from .translate import tr

# A disk with less room counts as full: what failed for want of it has given some back when the question is asked.
_SMALLEST_ROOM_BYTES = 1 << 20
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
        DiskFull: no room left.
        JobCancelled: the user cancelled.

    After any error a file is what it was before, or gone when there was none.
    """
    layer = QgsVectorLayer(path, name, "ogr")
    if not layer.isValid():
        raise BadInput(f"The engine's layer '{path}' cannot be read.", "Run the algorithm again.")
    value = parameters.get(name)
    text = destination_text(value)
    # Mapped fields are added to the layer that is there; any other file is written anew.
    added = isinstance(value, QgsProcessingOutputLayerDefinition) and value.useRemapping()
    path = os.path.abspath(text) if is_file_destination(text) and not added else ""
    feedback.setProgressText(tr("Writing {}").format(name))
    with _in_place_of(path):
        destination = _fill(layer, algorithm, parameters, name, context, feedback)
        _check_written(destination if path else "", layer, name)
    return destination


def _fill(layer: QgsVectorLayer, algorithm: Any, parameters: Any, name: str, context: Any, feedback: Any) -> str:
    """Make the sink and copy the features into it, without the table's key and, as `_kept_fields` says, without fid."""
    kept = _kept_fields(layer)
    fields = QgsFields()
    for index in kept:
        fields.append(layer.fields().at(index))
    text = destination_text(parameters.get(name))
    try:
        sink, destination = algorithm.parameterAsSink(parameters, name, context, fields, layer.wkbType(), layer.crs())
    except QgsProcessingException as error:
        raise _sink_error(name, text, str(error)) from error
    if sink is None:
        raise _sink_error(name, text, "")
    total = max(1, layer.featureCount())
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
            raise _sink_error(name, text, sink.lastError())
    del sink  # closes a file
    return str(destination)


def _kept_fields(layer: QgsVectorLayer) -> list[int]:
    """Return the fields to be copied: not the key, and no field called fid.

    A GeoPackage takes a field of that name for its own key, and the samples of one polygon all have that polygon's.
    It comes from the user's GeoPackage (a selection of it, a filter, a copy in memory); ``originfid`` holds it.
    """
    keys = set(layer.primaryKeyAttributes())
    names = [name.lower() for name in layer.fields().names()]
    return [index for index, name in enumerate(names) if index not in keys and name != "fid"]


@contextlib.contextmanager
def _in_place_of(path: str) -> Iterator[None]:
    """Set the file at ``path`` aside for the time of the block; when it fails the file is put back, else removed.

    A failed run leaves what was there before, or nothing. An empty ``path`` (a layer in memory, a table) is left alone.
    """
    stem, suffix = os.path.splitext(path)
    endings = [suffix, f"{suffix}-wal", f"{suffix}-shm", f"{suffix}-journal"]
    endings += [".shx", ".dbf", ".prj", ".cpg", ".qix"] if suffix.lower() == ".shp" else []
    aside = os.path.join(os.path.dirname(stem), f".{os.path.basename(stem)}.{uuid.uuid4().hex[:8]}.old")
    present = [ending for ending in endings if path and os.path.isfile(stem + ending)]
    try:
        for ending in present:
            os.replace(stem + ending, aside + ending)
        yield
    except BaseException:
        for ending in endings if path else ():
            _remove(stem + ending)
        for ending in present:
            if os.path.isfile(aside + ending):
                os.replace(aside + ending, stem + ending)
        raise
    for ending in present:
        _remove(aside + ending)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _check_written(path: str, layer: QgsVectorLayer, name: str) -> None:
    """Read a file back: on a full disk the last features are lost when it is closed, and nobody is told.

    Raises:
        DiskFull: no room left.
        BadInput: the file is broken for another reason.
    """
    if os.path.splitext(path)[1].lower() not in (".gpkg", ".shp", ".geojson", ".sqlite", ".fgb"):
        return
    written = QgsVectorLayer(path, name, "ogr")
    # A shapefile counts features that it has not got: their geometry or all of their values are missing.
    whole = (f for f in written.getFeatures() if f.hasGeometry() and not all(map(compat.is_null, f.attributes())))
    if not written.isValid() or sum(1 for _ in whole) != layer.featureCount():
        raise _sink_error(name, path, "it is incomplete")


def _sink_error(name: str, path: str, text: str) -> Exception:
    """Return the sentence for a sink that cannot be made or filled; GDAL's own words tell of tables and statements."""
    folder = os.path.dirname(os.path.abspath(path)) if is_file_destination(path) else ""
    little = os.path.isdir(folder) and shutil.disk_usage(folder).free < _SMALLEST_ROOM_BYTES
    if little or re.search(r"disk( is)? full|no space left", text, re.IGNORECASE):
        return DiskFull(f"No room is left to write {name} '{path}'.", "Free space or choose another folder.")
    reason = f": {' '.join(text.split()).rstrip('.')}" if text else ""
    return BadInput(f"{name} '{path}' cannot be written{reason}.", "Choose another file, or close it where it is open.")
