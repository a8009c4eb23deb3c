"""Deepscape: point-and-click deep learning on remote-sensing images, in QGIS.

This package imports with neither QGIS nor torch present: the engine's worker process loads the same folder.
"""


def classFactory(iface):  # noqa: N802, ANN001, ANN201 - the name and signature are QGIS's
    """Return the plugin object; QGIS calls this when it loads the plugin (``iface`` is None under qgis_process)."""
    from .plugin import DeepscapePlugin

    return DeepscapePlugin(iface)
