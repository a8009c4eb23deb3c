"""The menu Plugins > Deepscape, the dock that it opens, and the hint that the engine is not set up yet."""

from __future__ import annotations

from typing import Any, Callable, List, Optional

from qgis.core import QgsSettings
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QAction, QPushButton

from ..algorithms import compat, icons, live
from ..algorithms.base import engine_setting
from ..algorithms.translate import tr
from ..tasks.environment import engine_ready
from .training_dock import TrainingDock

TITLE = "Deepscape"
HINT_SETTING = "deepscape/setup_hint_shown"


class Menu:
    """The entries of the menu; made by initGui, taken away by unload."""

    def __init__(self, iface: Any) -> None:
        self._iface = iface
        self._actions: List[QAction] = []
        self._dock: Optional[TrainingDock] = None
        self._hub: Optional[live.Hub] = None

    def add(self) -> None:
        """Add the entries, and show the hint once where the engine is missing."""
        self._add(tr("Set up the engine…"), lambda: open_dialog("deepscape:setupengine"))
        self._add(tr("Engine status…"), lambda: open_dialog("deepscape:enginestatus"))
        self._add(tr("Training…"), self.show_training)
        self._hub = live.open_hub()
        self._hub.began.connect(self._on_began)
        self._hint()

    def remove(self) -> None:
        """Take the entries away."""
        for action in self._actions:
            self._iface.removePluginMenu(TITLE, action)
            action.deleteLater()
        self._actions = []
        if self._dock is not None:
            self._dock.detach()
            self._iface.removeDockWidget(self._dock)
            self._dock.deleteLater()
            self._dock = None
        live.close_hub()
        self._hub = None

    def show_training(self) -> None:
        """Show the dock, which is made when it is first needed."""
        if self._hub is None:
            return
        if self._dock is None:
            self._dock = TrainingDock(self._hub, self._iface.mainWindow())
            self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._dock)
        self._dock.show()
        self._dock.raise_()

    def _on_began(self, run: live.Run) -> None:
        self.show_training()

    def _add(self, title: str, action_of: Callable[[], None]) -> None:
        action = QAction(icons.icon(), title, self._iface.mainWindow())
        action.triggered.connect(lambda checked=False: action_of())
        self._iface.addPluginToMenu(TITLE, action)
        self._actions.append(action)

    def _hint(self) -> None:
        settings = QgsSettings()
        if engine_ready(engine_setting()) or settings.value(HINT_SETTING, False, type=bool):
            return
        settings.setValue(HINT_SETTING, True)
        bar = self._iface.messageBar()
        text = tr("The engine is not set up yet. It takes some minutes, once.")
        widget = bar.createMessage(TITLE, text)
        button = QPushButton(tr("Set up the engine…"))
        button.clicked.connect(lambda checked=False: open_dialog("deepscape:setupengine"))
        widget.layout().addWidget(button)
        bar.pushWidget(widget, compat.INFO)


# QGIS keeps a dialog's C++ half alone; without its Python half the Run button does nothing.
_OPEN: List[Any] = []


def open_dialog(algorithm: str) -> None:
    """Open the Processing dialog of an algorithm."""
    import processing

    dialog = processing.createAlgorithmDialog(algorithm)
    if dialog is None:
        return
    _OPEN.append(dialog)
    # Not `finished`, which a method of the dialog hides.
    dialog.rejected.connect(lambda: _OPEN.remove(dialog) if dialog in _OPEN else None)
    dialog.show()
