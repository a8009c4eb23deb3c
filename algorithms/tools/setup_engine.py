"""Install, repair or remove the engine's environment."""

from __future__ import annotations

from qgis.core import QgsSettings

from ...tasks import client
from ...tasks.environment import ACTIONS, BUILDS, EXTRAS, SetupOptions, home, install
from ...tasks.environment.places import made
from .. import parameters as p
from ..base import ENGINE_SETTING, DeepscapeAlgorithm
from ..translate import tr
from ..values import Values
from . import network

UV_SETTING = "deepscape/uv"


class SetupEngine(DeepscapeAlgorithm):
    """setupengine."""

    ACTION = "ACTION"
    BUILD = "BUILD"
    INTERPRETER = "INTERPRETER"
    WHEELS = "WHEELS"
    EXTRAS = "EXTRAS"
    PYTHON = "PYTHON"
    DEVICE = "DEVICE"
    LOG = "LOG"
    INSTALLED_EXTRAS = "INSTALLED_EXTRAS"

    STEP = "tools"
    SUMMARY = (
        "Installs what Deepscape computes with (PyTorch and others) into an environment of its own, outside QGIS, or "
        "repairs or removes it. QGIS's own Python is not touched. Needed once; it takes some minutes and the network."
    )

    def name(self):
        return "setupengine"

    def displayName(self):
        return tr("Set up the engine")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.choice(
                self.ACTION,
                tr("Action"),
                tr(
                    "install: nothing happens when it is there. repair: build it anew. remove: remove it, and all "
                    "that was downloaded; models stay."
                ),
                ACTIONS,
            ),
            p.choice(
                self.BUILD,
                tr("Build"),
                tr("auto: for NVIDIA graphics cards (CUDA) where there is one, else for the processor."),
                BUILDS,
            ),
            p.file(
                self.INTERPRETER,
                tr("Use this Python instead"),
                tr("A Python interpreter that has all packages already: it is verified, and nothing is installed."),
                advanced=True,
            ),
            p.folder(
                self.WHEELS,
                tr("Folder with wheels"),
                tr("Packages (.whl) that were downloaded before, for a machine without network."),
                optional=True,
                advanced=True,
            ),
            p.added(
                p.choices(
                    self.EXTRAS,
                    tr("Extras"),
                    tr(
                        "What to add to the engine; an engine that is there stays as it is, and keeps the extras that "
                        "it has. openvino: OpenVINO, which maps some larger networks faster on Intel processors "
                        "(RUNTIME of 'Classify an image'); 180 MB."
                    ),
                    list(EXTRAS),
                )
            ),
        )
        self.add_string(self.PYTHON, tr("Python"), tr("The engine's interpreter; empty after it was removed."))
        self.add_string(self.DEVICE, tr("Device"), tr("cuda or cpu."))
        self.add_string(self.LOG, tr("Log"), tr("Path of the set-up's log."))
        self.add_string(
            self.INSTALLED_EXTRAS,
            tr("Installed extras"),
            tr("The extras that the engine has, separated by commas; empty where there are none."),
        )

    def work(self, parameters, context, feedback):
        values = Values(self, parameters, context, feedback, self._snapshots)
        try:
            settings = QgsSettings()
            options = SetupOptions(
                action=values.choice(self.ACTION),
                build=values.choice(self.BUILD),
                interpreter=values.path(self.INTERPRETER),
                wheels=values.path(self.WHEELS),
                uv=str(settings.value(UV_SETTING, "") or ""),
                extra_env=network.environment(made(home())),
                extras=values.choices(self.EXTRAS),
            )
        finally:
            values.close()

        def tell(percent: float, sentence: str) -> None:
            feedback.setProgress(percent)
            feedback.setProgressText(sentence)

        done = install(
            options,
            progress=tell,
            cancelled=feedback.isCanceled,
            log=feedback.pushConsoleInfo,
            fetch=lambda url: network.fetch(url, feedback),
            # Running workers hold the files that are about to be replaced.
            before_replacing=client.shutdown,
        )
        # The choice of an own interpreter stays until the managed environment is asked for again.
        settings.setValue(ENGINE_SETTING, options.interpreter)
        return {
            self.PYTHON: done.python,
            self.DEVICE: done.device,
            self.LOG: done.log,
            self.INSTALLED_EXTRAS: ",".join(done.extras),
        }
