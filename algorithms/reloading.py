"""Layers of the project that show a file which a run has written anew: they are given the new file.

A run puts a new file in the place of the old one, which the layers that have it open keep showing. Processing hands
such a layer over as the result, under the name of the new one (seen on 3.22).
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterable, List, Optional

from qgis.core import QgsDataProvider, QgsMapLayer, QgsProviderRegistry, QgsRasterLayer, QgsVectorLayer

from . import compat


def reload_layers(paths: Iterable[str], project: Any) -> None:
    """Show the new files in all layers of a project that show an older one of the same path; in the main thread.

    Args:
        paths: what was written: files, and folders with all that is in them.
        project: None where there is none.
    """
    written = [_real(path) for path in paths]
    for file, layers in _layers_by_file(project).items():
        if any(file == path or file.startswith(path + os.sep) for path in written):
            _reload_rasters([layer for layer in layers if isinstance(layer, QgsRasterLayer)], file)
            _reload_vectors([layer for layer in layers if isinstance(layer, QgsVectorLayer)])


def _layers_by_file(project: Any) -> Dict[str, List[QgsMapLayer]]:
    found: Dict[str, List[QgsMapLayer]] = {}
    for layer in project.mapLayers().values() if project else ():
        if isinstance(layer, (QgsRasterLayer, QgsVectorLayer)):
            parts = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
            path = str(parts.get("path") or "") or layer.source().split("|")[0]
            if os.path.isfile(path):
                found.setdefault(_real(path), []).append(layer)
    return found


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _reload_rasters(layers: List[QgsRasterLayer], file: str) -> None:
    aside = file + ".aux.xml"
    written = _bytes_of(aside)
    for layer in layers:
        _open_anew(layer)
    if _bytes_of(aside) != written:
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
    if crs.isValid() and not layer.crs().isValid():
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


def _reload_vectors(layers: List[QgsVectorLayer]) -> None:
    for layer in layers:
        # Also while it is edited: edits would be saved with success, into the old file that nobody sees (3.22).
        layer.reload()
        layer.updateExtents(True)
        layer.triggerRepaint()


def _bytes_of(path: str) -> Optional[bytes]:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def _put_back(path: str, content: Optional[bytes]) -> None:
    with contextlib.suppress(OSError):  # the new file is shown all the same
        if content is None:
            os.remove(path)
            return
        with open(path, "wb") as file:
            file.write(content)
