"""The plugin's icon."""

from __future__ import annotations

from pathlib import Path

from qgis.PyQt.QtGui import QIcon

PATH = str(Path(__file__).resolve().parent.parent / "icon.svg")


def icon() -> QIcon:
    """Return the icon."""
    return QIcon(PATH)
