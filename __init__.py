"""Deepscape: point-and-click deep learning on remote-sensing images, in QGIS.

This package imports with neither QGIS nor torch present: the engine's worker process loads the same folder.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:  # noqa: N802 - the name is QGIS's
    """Return the plugin object; QGIS calls this when it loads the plugin (``iface`` is None under qgis_process)."""
    from .plugin import DeepscapePlugin

    return DeepscapePlugin(iface)
