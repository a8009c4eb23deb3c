"""Translation of what the user reads: one context for the whole plugin."""

from __future__ import annotations

from qgis.PyQt.QtCore import QCoreApplication


def tr(text: str) -> str:
    """Return the text in the language of QGIS; templates are translated before ``.format``."""
    return QCoreApplication.translate("Deepscape", text)
