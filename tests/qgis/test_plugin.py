"""The plugin's life: it loads without the engine, adds a menu in the window, and takes all away."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from deepscape.tests.qgis.test_interface import PUBLISHED
from qgis.core import QgsApplication, QgsSettings
from qgis.PyQt.QtWidgets import QAction, QDialog, QHBoxLayout, QMainWindow, QPushButton, QWidget

ROOT = Path(__file__).resolve().parents[2]

LOADS = """
import os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from qgis.core import QgsApplication
app = QgsApplication([], False)
app.initQgis()
import deepscape
plugin = deepscape.classFactory(None)
plugin.initProcessing()
names = [a.name() for a in plugin.provider.algorithms()]
heavy = sorted({"torch", "rasterio", "geopandas", "sklearn", "numpy"} & set(sys.modules))
plugin.unload()
print(len(names), "classify" in names, heavy)
app.exitQgis()
"""


def test_it_loads_without_torch():
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(PUBLISHED)} True []"


class Bar:
    def __init__(self):
        self.pushed = []

    def createMessage(self, title, text):
        widget = QWidget()
        widget.setLayout(QHBoxLayout())
        widget.text = text
        return widget

    def pushWidget(self, widget, level):
        self.pushed.append(widget)


class Iface:
    def __init__(self):
        self.window, self.bar, self.entries = QMainWindow(), Bar(), []

    def mainWindow(self):
        return self.window

    def messageBar(self):
        return self.bar

    def addPluginToMenu(self, title, action):
        assert title == "Deepscape"
        self.entries.append(action)

    def addDockWidget(self, area, dock):
        self.window.addDockWidget(area, dock)

    def removeDockWidget(self, dock):
        self.window.removeDockWidget(dock)

    def removePluginMenu(self, title, action):
        self.entries.remove(action)


@pytest.fixture
def menu(plugin):
    from deepscape.ui.menu import HINT_SETTING, Menu

    QgsSettings().remove(HINT_SETTING)
    iface = Iface()
    yield Menu(iface), iface
    QgsSettings().remove(HINT_SETTING)


def test_menu_comes_and_goes(menu, monkeypatch):
    monkeypatch.setenv("DEEPSCAPE_ENGINE_PYTHON", sys.executable)
    entries, iface = menu
    entries.add()
    assert [action.text() for action in iface.entries] == ["Set up the engine…", "Engine status…", "Training…"]
    assert all(isinstance(action, QAction) for action in iface.entries)
    assert iface.bar.pushed == []
    entries.remove()
    assert iface.entries == []


def test_the_dialogs_of_the_menu_keep_their_python_half(menu, monkeypatch):
    """Without it their Run button does nothing."""
    from deepscape.ui import menu as module

    dialog = QDialog()
    seen = weakref.ref(dialog)
    monkeypatch.setattr("processing.createAlgorithmDialog", {"deepscape:enginestatus": dialog}.pop, raising=False)
    module.open_dialog("deepscape:enginestatus")
    del dialog
    gc.collect()
    assert seen() is not None and seen().isVisible()
    seen().reject()
    gc.collect()
    assert module._OPEN == []


def test_hint_once_when_the_engine_is_missing(menu, monkeypatch):
    monkeypatch.delenv("DEEPSCAPE_ENGINE_PYTHON", raising=False)
    entries, iface = menu
    entries.add()
    (widget,) = iface.bar.pushed
    assert "not set up yet" in widget.text
    assert widget.findChild(QPushButton).text() == "Set up the engine…"
    entries.remove()
    entries.add()
    assert len(iface.bar.pushed) == 1
    entries.remove()


def test_metadata_is_complete():
    lines = (ROOT / "metadata.txt").read_text(encoding="utf-8").splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    assert facts["qgisMinimumVersion"] == "3.22" and facts["hasProcessingProvider"] == "yes"
    wanted = "name description version author email about tracker repository homepage icon tags category changelog"
    assert all(facts[key] for key in wanted.split())
    assert "%" not in "".join(lines)
    assert (ROOT / facts["icon"]).is_file()


def test_refreshing_the_provider_keeps_the_outputs_of_workflows(plugin):
    plugin.provider.refreshAlgorithms()
    workflow = QgsApplication.processingRegistry().algorithmById("deepscape:landcoverfrompolygons")
    assert len(workflow.outputDefinitions()) == 5
