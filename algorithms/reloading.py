"""Layers of the project that show a file which a run has written anew: they are given the new file.

A run puts a new file in the place of the old one, which the layers that have it open keep showing. Processing hands
such a layer over as the result, under the name of the new one (seen on 3.22).

Unsaved edits name features by numbers that others have in the new file: a run does not begin where there are any.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

from qgis.core import (
    QgsDataProvider,
    QgsMapLayer,
    QgsMessageLog,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorLayer,
)

from . import compat
from .translate import tr


def edited_layer(paths: Iterable[str], project: Any) -> Optional[Tuple[str, str]]:
    """Return name and file of a layer with unsaved edits that shows what will be written; in the main thread.

    Args:
        paths: what will be written: files, and folders with all that is in them.
        project: None where there is none.

    Returns:
        None where there is no such layer.
    """
    for file, layers in _layers_by_file(paths, project).items():
        for layer in layers:
            if _has_edits(layer):
                return layer.name(), file
    return None


def reload_layers(paths: Iterable[str], project: Any) -> None:
    """Show the new files in all layers of a project that show an older one of the same path; in the main thread.

    Args:
        paths: what was written: files, and folders with all that is in them.
        project: None where there is none.
    """
    for file, layers in _layers_by_file(paths, project).items():
        _reload_rasters([layer for layer in layers if isinstance(layer, QgsRasterLayer)], file)
        _reload_vectors([layer for layer in layers if isinstance(layer, QgsVectorLayer)], file)


def _layers_by_file(paths: Iterable[str], project: Any) -> Dict[str, List[QgsMapLayer]]:
    """Return the layers that show one of these files or a file in one of these folders, by their file."""
    written = {form for path in paths for form in (_absolute(path), _real(path))}
    found: Dict[str, List[QgsMapLayer]] = {}
    if not written or not project:
        return found
    names = {os.path.basename(path) for path in written}
    for layer in project.mapLayers().values():
        if not isinstance(layer, (QgsRasterLayer, QgsVectorLayer)):
            continue
        path = _path_of(layer)
        shown = _absolute(path)
        # By the text first: to ask the disk for a file on a share that is out of reach freezes QGIS for long.
        if os.path.basename(shown) not in names and not _is_among(shown, written):
            continue
        if os.path.isfile(path) and _is_among(_real(path), written):
            found.setdefault(_real(path), []).append(layer)
    return found


def _path_of(layer: QgsMapLayer) -> str:
    parts = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
    return str(parts.get("path") or "") or layer.source().split("|")[0]


def _is_among(file: str, written: Iterable[str]) -> bool:
    return any(file == path or file.startswith(path + os.sep) for path in written)


def _absolute(path: str) -> str:
    """Return a path to compare, without a look at the disk."""
    return os.path.normcase(os.path.abspath(path))


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _has_edits(layer: QgsMapLayer) -> bool:
    return isinstance(layer, QgsVectorLayer) and layer.isEditable() and layer.isModified()


def _reload_rasters(layers: List[QgsRasterLayer], file: str) -> None:
    aside = file + ".aux.xml"
    written = _bytes_of(aside)
    # What is there and cannot be read cannot be put back either.
    known = written is not None or not os.path.isfile(aside)
    for layer in layers:
        _open_anew(layer)
    if known and _bytes_of(aside) != written:
        # On closing the old file, GDAL wrote its statistics beside the new one, which would be taken to be of that.
        _put_back(aside, written)
        for layer in layers:
            _open_anew(layer)
    for layer in layers:
        _stretch(layer)
        layer.triggerRepaint()


def _open_anew(layer: QgsRasterLayer) -> None:
    """Open a raster's file again, its style kept; `reload` would leave the extent and the CRS of the old (3.22)."""
    crs = layer.crs()
    layer.setDataSource(layer.source(), layer.name(), layer.providerType(), QgsDataProvider.ProviderOptions())
    provider = layer.dataProvider()
    # By the file: QGIS may be set to give a layer of one without a CRS that of the project.
    if crs.isValid() and (provider is None or not provider.crs().isValid()):
        layer.setCrs(crs)  # that the user gave to a file without one


def _stretch(layer: QgsRasterLayer) -> None:
    """Take the limits of colours from the new values where QGIS, not the user, took them from the old ones."""
    renderer = layer.renderer()
    limits = renderer.minMaxOrigin().limits() if renderer is not None else compat.NO_LIMITS
    if limits == compat.NO_LIMITS:
        return
    enhancement: Any = None
    for name in ("contrastEnhancement", "redContrastEnhancement"):
        enhancement = enhancement or (getattr(renderer, name)() if hasattr(renderer, name) else None)
    algorithm = enhancement.contrastEnhancementAlgorithm() if enhancement else compat.STRETCH_TO_LIMITS
    layer.setContrastEnhancement(algorithm, limits)


def _reload_vectors(layers: List[QgsVectorLayer], file: str) -> None:
    for layer in layers:
        if _has_edits(layer):  # begun while the run went on
            layer.rollBack()
            text = tr("The unsaved edits of the layer '{0}' were discarded, for '{1}' was written anew meanwhile.")
            QgsMessageLog.logMessage(text.format(layer.name(), file), "Deepscape", compat.WARNING)
        # Of the old features, too, is what was undone and could be done again.
        layer.undoStack().clear()
        # Also while it is edited: edits would be saved with success, into the old file that nobody sees (3.22).
        layer.reload()
        layer.updateExtents(True)
        layer.triggerRepaint()


def _bytes_of(path: str) -> Optional[bytes]:
    """Return what a file holds; None where it is not there or cannot be read."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            return file.read()
    return None


def _put_back(path: str, content: Optional[bytes]) -> None:
    with contextlib.suppress(OSError):  # the new file is shown all the same
        if content is None:
            os.remove(path)
            return
        with open(path, "wb") as file:
            file.write(content)
