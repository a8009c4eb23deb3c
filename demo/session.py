"""A QGIS without a window that runs the plugin's algorithms; what the demos share."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

ROOT = Path(__file__).resolve().parent.parent

from qgis.analysis import QgsNativeAlgorithms  # noqa: E402
from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback  # noqa: E402


def start_qgis(profile):
    """Start QGIS without a window, with Processing and this plugin's provider; the user's profile is not touched."""
    application = QgsApplication([], False, profile)
    application.initQgis()
    sys.path.append(str(Path(QgsApplication.pkgDataPath()) / "python" / "plugins"))
    from processing.core.Processing import Processing

    Processing.initialize()
    registry = QgsApplication.processingRegistry()
    if registry.providerById("native") is None:  # older versions leave it to the caller
        registry.addProvider(QgsNativeAlgorithms())
    spec = importlib.util.spec_from_file_location(
        "deepscape", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["deepscape"] = package
    spec.loader.exec_module(package)
    plugin = package.classFactory(None)
    plugin.initProcessing()
    return application, plugin


class Feedback(QgsProcessingFeedback):
    """Prints warnings and the lines of the log that hold one of some words; the rest stays silent."""

    def __init__(self, told):
        super().__init__(False)
        self.told = told

    def pushWarning(self, warning):
        print(f"  warning: {warning}")

    def reportError(self, error, fatalError=False):
        print(f"  error: {error}", file=sys.stderr)

    def pushInfo(self, info):
        if any(word in info for word in self.told):
            print(f"  {info}")


def run(algorithm, told=("shared",), **parameters):
    """Run an algorithm, one of the plugin's where no provider is named, and return its outputs; an error ends the demo.

    ``told``: words of the log's lines that are printed.
    """
    import processing

    return processing.run(
        algorithm if ":" in algorithm else f"deepscape:{algorithm}",
        parameters,
        context=QgsProcessingContext(),
        feedback=Feedback(told),
        is_child_algorithm=True,
    )
