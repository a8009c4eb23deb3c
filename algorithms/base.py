"""What every algorithm has in common: parameters -> job -> run -> outputs, errors and help.

An algorithm's own file holds its metadata, its parameters and one method, `job`. Everything else follows from names:
the output NODATA_VALUE is the result's field ``nodata_value``, the destination PROBABILITIES the job's output
``probabilities``.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import os
import shutil
import time
from typing import Any, ClassVar, Dict, Iterable, Mapping, Optional, Tuple

from qgis.core import (
    QgsApplication,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsRasterLayer,
    QgsSettings,
    QgsVectorLayer,
)

from ..tasks import jobfiles, manager
from ..tasks.environment import EngineInterpreter, engine_ready, find_engine, model_store, scratch_dir
from ..tasks.errors import MENDABLE, BadInput, DeepscapeError, JobCancelled
from ..tasks.jobs import Extent, Job
from . import checks, compat, gdalnames, icons, live, reloading, sinks, styling
from .destinations import complete_destination, destination_text, is_file_destination
from .snapshots import is_given, raster_snapshot, vector_snapshot
from .translate import tr
from .values import Values
from .waiting import ask_main_thread, do_or_log, in_main_thread, run_and_listen, soon_in_main_thread

HOMEPAGE = "https://github.com/deepscape/deepscape"
ENGINE_SETTING = "deepscape/engine_python"

GROUPS = {
    "sampling": "1 Sampling",
    "patches": "2 Patches",
    "training": "3 Training",
    "mapping": "4 Mapping",
    "assessment": "5 Assessment",
    "workflows": "Workflows",
    "tools": "Tools",
}


def engine_setting() -> str:
    """Return the interpreter that the user chose in QGIS's settings; empty for the managed environment."""
    return str(QgsSettings().value(ENGINE_SETTING, "") or "")


class DeepscapeAlgorithm(QgsProcessingAlgorithm):
    """Base of all algorithms: group, icon, help, sentences for wrong parameters and for errors.

    A subclass has `name`, `displayName`, `initAlgorithm` and `work`, and these class attributes:

    Attributes:
        STEP: id of its group.
        SUMMARY: what it does, for the help page; translated when shown.
    """

    STEP: ClassVar[str] = ""
    SUMMARY: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        self._output_help: list[Tuple[str, str]] = []
        self._snapshots: Dict[str, Any] = {}

    def createInstance(self):
        return type(self)()

    def group(self):
        return tr(GROUPS[self.STEP])

    def groupId(self):
        return self.STEP

    def flags(self):
        return super().flags() | compat.CAN_CANCEL

    def icon(self):
        return icons.icon()

    def svgIconPath(self):
        return icons.PATH

    def helpUrl(self):
        return HOMEPAGE

    def shortHelpString(self):
        """Return the help page, made of the (label, help) pairs of the parameters and outputs."""
        inputs = [(d.description(), d.help()) for d in self.parameterDefinitions() if not d.isDestination()]
        outputs = [(d.description(), d.help()) for d in self.parameterDefinitions() if d.isDestination()]
        return "".join(
            [
                f"<p>{html.escape(tr(self.SUMMARY))}</p>",
                _section(tr("Inputs"), inputs),
                _section(tr("Outputs"), [*outputs, *self._output_help]),
            ]
        )

    def shortDescription(self):
        return tr(self.SUMMARY)

    # --- what initAlgorithm calls ---

    def add_parameters(self, *parameters: Any) -> None:
        """Declare parameters, in the order in which the dialog shows them."""
        for parameter in parameters:
            for each in parameter if isinstance(parameter, list) else [parameter]:
                self.addParameter(each)

    def add_number(self, name: str, title: str, text: str) -> None:
        """Declare a number that designer models may use."""
        self.addOutput(QgsProcessingOutputNumber(name, title))
        self._output_help.append((title, text))

    def add_string(self, name: str, title: str, text: str) -> None:
        """Declare a text that designer models may use."""
        self.addOutput(QgsProcessingOutputString(name, title))
        self._output_help.append((title, text))

    def add_boolean(self, name: str, title: str, text: str) -> None:
        """Declare a yes or no that designer models may branch on."""
        self.addOutput(QgsProcessingOutputBoolean(name, title))
        self._output_help.append((title, text))

    # --- what QGIS calls ---

    def checkParameterValues(self, parameters, context):
        found = checks.complaint(self, parameters, context)
        return not found, found

    def prepareAlgorithm(self, parameters, context, feedback):
        """Take the snapshots; on whatever thread, so without canvas or widget; of the project the main one is asked."""
        try:
            # Steps of a model come here without QGIS's own check.
            found = checks.complaint(self, parameters, context)
            if found:
                raise BadInput(found)
            _check_edits(self, parameters, context)
            parameters = gdalnames.opened(self.parameterDefinitions(), parameters, context)
            self._snapshots = {
                definition.name(): self._snapshot(definition, parameters, context, feedback)
                for definition in self.parameterDefinitions()
                if is_given(parameters.get(definition.name()))
            }
        except DeepscapeError as error:
            raise _exception(str(error)) from error
        return True

    def _snapshot(self, definition: Any, parameters: Mapping[str, Any], context: Any, feedback: Any) -> Any:
        name = definition.name()
        if isinstance(definition, QgsProcessingParameterRasterLayer):
            return raster_snapshot(self.parameterAsRasterLayer(parameters, name, context), name, context)
        if isinstance(definition, QgsProcessingParameterMultipleLayers):
            if definition.layerType() == compat.SOURCE_FILE:
                return None
            layers = self.parameterAsLayerList(parameters, name, context)
            return tuple(raster_snapshot(layer, name, context) for layer in layers)
        if isinstance(definition, QgsProcessingParameterFeatureSource):
            return vector_snapshot(self, parameters, name, context)
        if isinstance(definition, QgsProcessingParameterMapLayer):
            layer = self.parameterAsLayer(parameters, name, context)
            if isinstance(layer, QgsRasterLayer):
                return raster_snapshot(layer, name, context)
            _tell_of_selection(name, layer, parameters[name], feedback)
            return vector_snapshot(self, parameters, name, context)
        if isinstance(definition, QgsProcessingParameterExtent):
            box = self.parameterAsExtent(parameters, name, context)
            crs = self.parameterAsExtentCrs(parameters, name, context)
            wkt = crs.toWkt() if crs.isValid() else ""
            return Extent(box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum(), wkt)
        return None

    def processAlgorithm(self, parameters, context, feedback):
        """Run, and turn our errors into QGIS's: `reportError` alone would let qgis_process exit 0."""
        try:
            return self.work(parameters, context, feedback)
        except JobCancelled as error:
            # An empty result would count as success, and QGIS would try to load outputs that are not there.
            raise _exception(f"{tr('Cancelled.')} {error.remedy}".strip()) from error
        except DeepscapeError as error:
            if error.details and not isinstance(error, MENDABLE):
                feedback.pushDebugInfo(error.details)
            raise _exception(str(error)) from error

    def work(self, parameters: Mapping[str, Any], context: Any, feedback: Any) -> Dict[str, Any]:
        """Do the work and return the outputs by name.

        Raises:
            DeepscapeError: with a sentence and its remedy.
        """
        raise DeepscapeError(f"The algorithm '{self.name()}' does nothing.")


class JobAlgorithm(DeepscapeAlgorithm):
    """Base of the algorithms that the engine does; a subclass turns its values into a job (`job`).

    Attributes:
        NAMED_AFTER: the input whose layer name is added to those of the outputs on the canvas.
        ASIDE: outputs that are loaded unchecked; QGIS loads in no order, and they would cover the result.
        CURVES: whether it trains in epochs, which the window shows while it runs.
    """

    NAMED_AFTER: ClassVar[str] = ""
    ASIDE: ClassVar[Tuple[str, ...]] = ()
    CURVES: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._painted_rasters: list[str] = []
        self._written: list[str] = []

    def flags(self):
        return super().flags() | compat.SUPPORTS_BATCH

    def job(self, values: Values) -> Job:
        """Return the job that the parameters ask for."""
        raise DeepscapeError(f"The algorithm '{self.name()}' has no job.")

    def monitored(self, job: Job) -> str:
        """Return what chooses the best epoch of a training; empty where all epochs are run."""
        return str(getattr(job, "monitor", "")) if getattr(job, "patience", 0) else ""

    def painters(self, values: Values, result: Any) -> Dict[str, styling.Painter]:
        """Return how outputs are painted, by their names; none by default."""
        return {}

    def postProcessAlgorithm(self, context, feedback):
        """Before QGIS loads layers: show the new files where old ones are open, and load the rasters that are painted.

        Both in the main thread, where layers live.
        """
        show = functools.partial(reloading.reload_layers, self._written, context.project())
        if in_main_thread():
            do_or_log(show)  # the run is done, whatever becomes of the project's layers
            styling.load_with_style(self._painted_rasters, context)
        else:
            soon_in_main_thread(show)
        return {}

    def canExecute(self):
        if engine_ready(engine_setting()):
            return True, ""
        return False, tr("engine not set up: run 'Set up the engine'")

    def work(self, parameters, context, feedback):
        engine = find_engine(engine_setting())
        values = Values(self, parameters, context, feedback, self._snapshots)
        try:
            job = self.job(values)
            feedback.pushDebugInfo(jobfiles.describe(job))
            _check_sinks(values, job)
            result = self._run_job(job, engine, feedback)
            outputs = self._outputs(values, result, context, feedback)
            self._keep(values, job, result, outputs, context, feedback)
            return outputs
        finally:
            values.close()

    def _run_job(self, job: Job, engine: EngineInterpreter, feedback: Any) -> Any:
        listener = Listener(feedback)
        follower = live.follow(self._title(job), self.monitored(job), self.CURVES)

        def cancelled() -> bool:
            if follower.cancelled():
                feedback.cancel()
            return bool(feedback.isCanceled())

        def listen(message: Mapping[str, Any]) -> None:
            follower.tell(message)
            listener(message)

        run = functools.partial(
            manager.run_job,
            job,
            interpreter=engine.python,
            cancelled=cancelled,
            stopping=follower.stopping,
            scratch=str(scratch_dir()),
            auto_device=str(engine.facts.get("device", "cpu")),
        )
        with follower:
            result = run_and_listen(lambda on_message: run(on_message=on_message), listen)
            follower.result(result)
        for text in result.warnings:
            listener.warn(text)
        return result

    def _title(self, job: Job) -> str:
        """Return the name of the run of a job: the algorithm's and its output's."""
        first = next(iter(jobfiles.output_paths(job).values()), "")
        return f"{self.displayName()}: {os.path.splitext(os.path.basename(first))[0]}" if first else self.displayName()

    # --- outputs ---

    def _outputs(self, values: Values, result: Any, context: Any, feedback: Any) -> Dict[str, Any]:
        """Fill the sinks, style what can be styled, and return every output that is declared."""
        outputs: Dict[str, Any] = {}
        painters = self.painters(values, result)
        for name, path in values.sink_paths.items():
            written = str(getattr(result, name.lower(), "") or path)
            outputs[name] = sinks.copy_to_sink(self, values.parameters, name, context, feedback, written)
        for name, path in values.destinations.items():
            outputs[name] = str(getattr(result, name.lower(), "") or path)
        self._written = [path for path in map(_file_of, outputs.values()) if path]
        for name, painter in painters.items():
            if name in outputs:
                self._paint(name, outputs[name], painter, context)
        for name in self.ASIDE:
            if name in outputs and name not in painters:
                styling.style_when_loaded(outputs[name], styling.as_it_is, context, shown=False)
        self._name_layers(values, outputs, context)
        for definition in self.outputDefinitions():
            name = definition.name()
            if self.parameterDefinition(name) is None and hasattr(result, name.lower()):
                outputs[name] = _plain(getattr(result, name.lower()))
        return outputs

    def _paint(self, name: str, destination: str, painter: styling.Painter, context: Any) -> None:
        is_raster = isinstance(self.parameterDefinition(name), QgsProcessingParameterRasterDestination)
        styling.style_in_context(destination, painter, context)
        styling.style_when_loaded(destination, painter, context, name not in self.ASIDE)
        styling.save_sidecar(destination, painter, is_raster)
        if is_raster:
            self._painted_rasters.append(destination)

    def _name_layers(self, values: Values, outputs: Mapping[str, Any], context: Any) -> None:
        label = values.label(self.NAMED_AFTER)
        for name, destination in outputs.items():
            definition = self.parameterDefinition(name)
            if label and definition is not None and isinstance(destination, str):
                plain = definition.description()
                styling.name_when_loaded(destination, ("", name, plain), f"{plain} ({label})", context)

    # --- what stays beside the outputs ---

    def _keep(
        self, values: Values, job: Job, result: Any, outputs: Mapping[str, Any], context: Any, feedback: Any
    ) -> None:
        """Keep the job file and the exported inputs beside an output that stays, and a copy of a temporary model."""
        folders = compat.temporary_folders(context)
        real = {name: _file_of(outputs.get(name.upper(), "")) for name in job.outputs}
        first = next((path for path in real.values() if path), "")
        if not first or jobfiles.is_temporary(first, folders):
            feedback.pushInfo(tr("The output is temporary: no job file is kept, and an interrupted run starts anew."))
            model = real.get("output", "")
            if model.endswith(".safetensors"):
                kept = jobfiles.keep_model(model, str(model_store()), jobfiles.training_name(job))
                feedback.pushInfo(tr("A copy of the model is kept as '{}'.").format(kept))
                count, size = jobfiles.kept_models(str(model_store()))
                if count > 1:
                    feedback.pushInfo(
                        tr("That folder holds {0} models ({1:.1f} MB): delete those that you no longer need.").format(
                            count, size / 1e6
                        )
                    )
            return
        # The copies of inputs stay beside the output from now on: what repeats the job continues.
        resume = {"resume": True} if hasattr(job, "resume") else {}
        saved = dataclasses.replace(job, **real, **resume)
        stem = jobfiles.job_file_name(first)[: -len(jobfiles.SUFFIX)]
        kept = {path: f"{stem}.{os.path.basename(path)}" for path in values.raster_exports.values()}
        if values.exports:
            kept[values.exports] = f"{stem}.inputs.gpkg"
        for path, stays in kept.items():
            shutil.move(path, stays)
        saved = jobfiles.map_paths(saved, lambda path, is_output: kept.get(path, path))
        file = jobfiles.write_job_file(saved, None, folders)
        passing = dict.fromkeys(path for path in jobfiles.input_paths(saved) if jobfiles.is_temporary(path, folders))
        if passing:  # as between the steps of a model
            text = tr(
                "The job in '{0}' cannot be repeated once QGIS has removed its temporary files, for it reads {1}. "
                "To keep it repeatable, save such inputs as files of your own."
            )
            feedback.pushInfo(text.format(os.path.basename(file), ", ".join(f"'{path}'" for path in passing)))


class Listener:
    """Passes the engine's messages on to the feedback; text seldom, for QGIS's log keeps every line of it.

    Metrics are not text: ten a step would bury the line that sums them up, and the report shows their curves.
    """

    TEXT_EVERY_S = 2.0

    def __init__(self, feedback: Any) -> None:
        self._feedback = feedback
        self._stage = ""
        self._told = 0.0
        self._warned: set[str] = set()

    def __call__(self, message: Mapping[str, Any]) -> None:
        """Take a message of `manager.run_job`."""
        kind = message["type"]
        if kind == "progress":
            self._progress(message)
        elif kind == "waiting":
            self._feedback.setProgressText(str(message["text"]))
        elif kind == "log":
            self._feedback.pushInfo(str(message["text"]))
        elif kind == "warning":
            self.warn(str(message["text"]))

    def warn(self, text: str) -> None:
        """Show a warning once."""
        if text not in self._warned:
            self._warned.add(text)
            self._feedback.pushWarning(text)

    def _progress(self, message: Mapping[str, Any]) -> None:
        done, total = float(message["done"]), float(message["total"])
        if total > 0:
            self._feedback.setProgress(100.0 * done / total)
        now, stage = time.monotonic(), str(message.get("stage", ""))
        if stage != self._stage or now - self._told >= self.TEXT_EVERY_S:
            self._stage, self._told = stage, now
            self._feedback.setProgressText(progress_text(message))


def progress_text(message: Mapping[str, Any]) -> str:
    """Return a progress message in words: "Mapping: 3 of 30 Mpixels, 1.2 per second, 00:20 left"."""
    done, total, unit = float(message["done"]), float(message["total"]), str(message.get("unit", ""))
    stage = str(message.get("stage", "")) or tr("Working")
    stage = stage[:1].upper() + stage[1:]
    parts = []
    if total > 0 and unit:
        parts.append(tr("{0:,.0f} of {1:,.0f} {2}").format(done, total, unit))
    if message.get("rate"):
        rate = float(message["rate"])
        parts.append(tr("{0} {1}/s").format(f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}", unit))
    if message.get("remaining") is not None:
        minutes, seconds = divmod(round(float(message["remaining"])), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes:02d}:{seconds:02d}"
        parts.append(tr("{} left").format(clock))
    return f"{stage}: {', '.join(parts)}" if parts else stage


def _exception(text: str) -> QgsProcessingException:
    """Return what ends an algorithm with a sentence, said once.

    QGIS reports an exception, and writes it to its message log twice (seen on 3.22, with its own algorithms too).
    qgis_process prints both; there the log is silenced, since the run is over.
    """
    if QgsApplication.platform() == "qgis_process":
        QgsApplication.messageLog().blockSignals(True)
    return QgsProcessingException(text)


def _check_edits(algorithm: Any, parameters: Mapping[str, Any], context: Any) -> None:
    """Refuse an output in the place of a file that a layer of the project shows with unsaved edits.

    By their numbers these would go to other features of the new file.

    Raises:
        BadInput: names the file and the layer.
    """
    given = dict(parameters)
    paths = []
    for definition in algorithm.destinationParameterDefinitions():
        complete_destination(given, definition)
        path = _file_of(destination_text(given.get(definition.name())))
        if path:
            paths.append(path)
    project = context.project()
    if not paths or project is None:
        return
    found = ask_main_thread(functools.partial(reloading.edited_layer, paths, project))
    if found is not None:
        layer, file = found
        raise BadInput(
            tr("'{0}' would be written anew, but the layer '{1}' shows it with unsaved edits.").format(file, layer),
            tr("Save or discard the edits first, or choose another output."),
        )


def _tell_of_selection(name: str, layer: Any, value: Any, feedback: Any) -> None:
    """Say that all features count though some are selected: a parameter for layers of both kinds offers no choice."""
    if not isinstance(layer, QgsVectorLayer) or isinstance(value, QgsProcessingFeatureSourceDefinition):
        return
    if not layer.selectedFeatureCount():
        return
    text = tr(
        "{0}: {1} of {2} features of '{3}' are selected, but all of them count. Save the selection as a layer, or "
        "filter the layer, to use these alone."
    )
    feedback.pushInfo(text.format(name, layer.selectedFeatureCount(), layer.featureCount(), layer.name()))


def _check_sinks(values: Values, job: Job) -> None:
    """Refuse a sink that would overwrite an input or cannot be written; the engine checks its own outputs so."""
    given = {name: destination_text(values.parameters.get(name)) for name in values.sink_paths}
    files = {name: text for name, text in given.items() if is_file_destination(text)}
    jobfiles.check_inputs_stay(job, files)
    for name, text in files.items():
        jobfiles.check_folder(name, os.path.dirname(os.path.abspath(text)))


def _plain(value: Any) -> Any:
    """Return a result's value as an output: numbers and texts as they are, tables as JSON."""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value


def _file_of(destination: Any) -> str:
    """Return the path of an output that is a file or folder; empty for a layer in memory or in a database."""
    text = str(destination or "")
    path: Optional[str] = text.split("|")[0]
    return path if path and is_file_destination(text) and os.path.exists(path) else ""


def _section(title: str, pairs: Iterable[Tuple[str, str]]) -> str:
    lines = [f"<b>{html.escape(label)}</b>: {html.escape(text)}" for label, text in pairs]
    return f"<h3>{html.escape(title)}</h3><p>{'<br/>'.join(lines)}</p>" if lines else ""
