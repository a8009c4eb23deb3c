"""The provider: every algorithm in the order of the work, and the designer workflows."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider

from ..tasks.protocol import plugin_version
from . import icons, workflows
from .assessment.assess import Assess
from .assessment.compare_runs import CompareRuns
from .mapping.classify import Classify
from .mapping.vectorise import Vectorise
from .patches.export_patches import ExportPatches
from .patches.extract_patches import ExtractPatches
from .patches.import_patches import ImportPatches
from .questions.does_context_help import DoesContextHelp
from .questions.is_my_accuracy_real import IsMyAccuracyReal
from .sampling.assessment_sample import AssessmentSample
from .sampling.labels_from_colours import LabelsFromColours
from .sampling.polygon_statistics import PolygonStatistics
from .sampling.sampling_rates import SamplingRates
from .sampling.select_patches import SelectPatches
from .sampling.select_samples import SelectSamples
from .sampling.select_vector_samples import SelectVectorSamples
from .sampling.split_samples import SplitSamples
from .tools.engine_status import EngineStatus
from .tools.model_info import ModelInfo
from .tools.normalise import Normalise
from .tools.setup_engine import SetupEngine
from .training.train_classifier import TrainClassifier
from .training.train_random_forest import TrainRandomForest
from .training.train_segmenter import TrainSegmenter

ALGORITHMS = (
    SelectSamples,
    SelectVectorSamples,
    PolygonStatistics,
    SamplingRates,
    SelectPatches,
    SplitSamples,
    AssessmentSample,
    LabelsFromColours,
    ExtractPatches,
    ImportPatches,
    ExportPatches,
    TrainClassifier,
    TrainSegmenter,
    TrainRandomForest,
    Classify,
    Vectorise,
    Assess,
    CompareRuns,
    IsMyAccuracyReal,
    DoesContextHelp,
    Normalise,
    ModelInfo,
    SetupEngine,
    EngineStatus,
)


class DeepscapeProvider(QgsProcessingProvider):
    """Provider ``deepscape``; it always loads, whether or not the engine is there."""

    def id(self):
        return "deepscape"

    def name(self):
        return "Deepscape"

    def longName(self):
        return "Deepscape - deep learning on remote-sensing images"

    def versionInfo(self):
        return plugin_version()

    def icon(self):
        return icons.icon()

    def svgIconPath(self):
        return icons.PATH

    def supportedOutputRasterLayerExtensions(self):
        return ["tif"]

    def load(self):
        self.refreshAlgorithms()
        return True

    def loadAlgorithms(self):
        for algorithm in ALGORITHMS:
            self.addAlgorithm(algorithm())
        for workflow in workflows.load():
            self.addAlgorithm(workflow)
