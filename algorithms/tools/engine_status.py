"""The engine's state, and the report for a bug tracker."""

from __future__ import annotations

from qgis.core import Qgis

from ...tasks.environment import status
from ...tasks.protocol import plugin_version
from .. import parameters as p
from ..base import DeepscapeAlgorithm, engine_setting
from ..translate import tr
from ..values import Values
from .model_info import write_text


class EngineStatus(DeepscapeAlgorithm):
    """enginestatus."""

    OUTPUT = "OUTPUT"
    READY = "READY"
    REPORT = "REPORT"
    DEVICE = "DEVICE"

    STEP = "tools"
    SUMMARY = (
        "Says whether the engine is set up, where it is and what it runs on. The report holds no passwords and nothing "
        "of your data: paste it into a bug report."
    )

    def name(self):
        return "enginestatus"

    def displayName(self):
        return tr("Engine status")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.file_output(self.OUTPUT, tr("Page"), tr("The report as a page."), "HTML (*.html)", optional=True)
        )
        self.add_boolean(self.READY, tr("Ready"), tr("Whether the engine is set up."))
        self.add_string(self.REPORT, tr("Report"), tr("The report as plain text."))
        self.add_string(self.DEVICE, tr("Device"), tr("cuda or cpu; empty where it is not known."))

    def work(self, parameters, context, feedback):
        values = Values(self, parameters, context, feedback, self._snapshots)
        try:
            found = status(engine_setting(), {"QGIS": Qgis.QGIS_VERSION, "Deepscape": plugin_version()})
            feedback.pushInfo(found.report)
            outputs = {self.READY: found.ready, self.REPORT: found.report, self.DEVICE: found.device}
            page = values.output(self.OUTPUT)
            if page:
                write_text(page, found.html())
                outputs[self.OUTPUT] = page
            return outputs
        finally:
            values.close()
