"""Every job that passes from QGIS to the engine, and what each gives back.

A job is a frozen dataclass of plain values; as JSON it is what the worker receives and what ``<output>.job.json``
holds. `Job.runner` names the engine function that does it, as ``module:function`` below the package: the worker imports
that module only when the job arrives, so that mapping never pays for training's imports.

To add a feature: a job and its result here, the engine function, an algorithm file, a line in the provider, tests.
Jobs stand in the order of the work: sampling, patches, training, mapping, assessment, tools.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple, Type

from .classtable import ClassEntry, Legend
from .errors import BadInput
from .serial import from_plain, to_plain


@dataclass(frozen=True)
class RasterSource:
    """A raster (it sets the grid), further rasters of the same grid stacked behind it, and a choice of its bands.

    Attributes:
        path: file or GDAL data source name.
        stack: further rasters of the same grid; all their bands follow those of ``path``.
        bands: 1-based bands of ``path``; empty = all.
        nodata: overrides the file's own no-data value; None = the file's own.
        crs: WKT given by QGIS when the file itself has none; empty = the file's own.
        label: what the user calls it (layer name), for messages; empty = the file name.
        expressions: further bands computed from these, ``NDVI = (B4 - B3) / (B4 + B3); ...``; they follow all others.
    """

    path: str
    stack: Tuple[str, ...] = ()
    bands: Tuple[int, ...] = ()
    nodata: Optional[float] = None
    crs: str = ""
    label: str = ""
    expressions: str = ""


@dataclass(frozen=True)
class VectorSource:
    """A vector layer in a file.

    Attributes:
        path: file.
        layer: layer name; empty = the first.
        crs: WKT given by QGIS when the file itself has none; empty = the file's own.
        label: what the user calls it (layer name), for messages; empty = the file name.
    """

    path: str
    layer: str = ""
    crs: str = ""
    label: str = ""


@dataclass(frozen=True)
class Extent:
    """A rectangle in map units of ``crs`` (WKT; empty = the raster's own)."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float
    crs: str = ""


@dataclass(frozen=True)
class Job:
    """Base of all jobs.

    Class attributes:
        kind: name in messages and job files.
        runner: ``module:function`` below the package; called as ``function(job, context)``.
        result_type: dataclass that the function returns.
        outputs: names of the fields that hold paths to be written; empty paths are not written.
        inputs: names of the fields that hold paths (or sources) to be read.
        device_field: name of the field that holds auto|cpu|cuda, or empty for a job that never uses a GPU.
        folders: those of ``outputs`` that are folders; their missing parents are created, a file's are not.
        distributed: every rank of torchrun or srun runs the function, and rank 0 alone writes; otherwise the other
            ranks end at once.
    """

    kind: ClassVar[str] = ""
    runner: ClassVar[str] = ""
    result_type: ClassVar[Type[Any]]
    outputs: ClassVar[Tuple[str, ...]] = ("output",)
    inputs: ClassVar[Tuple[str, ...]] = ()
    device_field: ClassVar[str] = ""
    folders: ClassVar[Tuple[str, ...]] = ()
    distributed: ClassVar[bool] = False

    @property
    def device(self) -> str:
        """Return the device that was asked for: auto, cpu or cuda."""
        return str(getattr(self, self.device_field)) if self.device_field else "cpu"


def _one_of(name: str, value: str, valid: Tuple[str, ...]) -> None:
    if value not in valid:
        raise BadInput(f"{name} '{value}' is not a valid choice.", f"Valid choices: {', '.join(valid)}.")


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise BadInput(f"{name} is {value:g}, less than {low:g}.", f"Give {low:g} or more.")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        # In fewer digits, what is just above 1 would be told as 1.
        raise BadInput(f"{name} is {value:.15g}, which is no share.", "Give a value from 0 to 1.")


# --- sampling --------------------------------------------------------------------------------------------------------

RASTER_STRATEGIES = ("upto", "constant", "total", "smallest", "all")
VECTOR_STRATEGIES = ("upto", "smallest", "constant", "percent", "total", "byclass", "all")
SAMPLERS = ("spread", "random", "periodic")
PATCH_MODES = ("grid", "random")
PATCH_SPLITS = ("none", "chessboard", "proportions", "blocks", "subtiles", "strata", "balanced")
SPLIT_METHODS = ("auto", "polygons", "blocks", "random", "scene", "column")
LENGTH_UNITS = ("pixels", "metres", "map")
NEAR_RULES = ("drop", "mark")


@dataclass(frozen=True)
class SamplesResult:
    """Points written to ``output``; ``counts``: class value (as text) -> samples. ``rates`` is CSV, ``report`` HTML."""

    output: str
    sample_count: int
    counts: Dict[str, int]
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()
    rates: str = ""
    report: str = ""


@dataclass(frozen=True)
class SelectSamples(Job):
    """Points from a label raster (OTB LabelImageSampleSelection and better samplers)."""

    kind: ClassVar[str] = "selectsamples"
    runner: ClassVar[str] = "engine.rastersampling:select_samples"
    result_type: ClassVar[Type[Any]] = SamplesResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "report")
    inputs: ClassVar[Tuple[str, ...]] = ("source", "crosswalk")

    source: RasterSource
    output: str
    band: int = 1
    strategy: str = "upto"
    count: int = 1000
    pad: int = 0
    sampler: str = "spread"
    seed: int = 0
    extent: Optional[Extent] = None
    classes: Tuple[int, ...] = ()
    crosswalk: str = ""
    legend: Legend = Legend()
    min_distance: Optional[int] = None
    report: str = ""

    def __post_init__(self) -> None:
        _one_of("STRATEGY", self.strategy, RASTER_STRATEGIES)
        _one_of("SAMPLER", self.sampler, SAMPLERS)
        _at_least("COUNT", self.count, 1)
        if self.min_distance is not None:
            _at_least("MIN_DISTANCE", self.min_distance, 1)
        _at_least("PAD", self.pad, 0)
        _at_least("BAND", self.band, 1)


@dataclass(frozen=True)
class SelectVectorSamples(Job):
    """Points from polygons, lines or points on the grid of a raster (OTB PolygonClassStatistics + SampleSelection)."""

    kind: ClassVar[str] = "selectvectorsamples"
    runner: ClassVar[str] = "engine.vectorsampling:select_vector_samples"
    result_type: ClassVar[Type[Any]] = SamplesResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "rates", "report")
    inputs: ClassVar[Tuple[str, ...]] = ("vector", "raster", "mask", "rates_file", "crosswalk")

    vector: VectorSource
    field: str
    raster: RasterSource
    output: str
    mask: Optional[RasterSource] = None
    strategy: str = "upto"
    count: int = 1000
    percent: float = 0.5
    rates_file: str = ""
    sampler: str = "spread"
    seed: int = 0
    classes: Tuple[int, ...] = ()
    crosswalk: str = ""
    legend: Legend = Legend()
    rates: str = ""
    erode_polygons: int = 0
    min_distance: Optional[int] = None
    report: str = ""

    def __post_init__(self) -> None:
        _one_of("STRATEGY", self.strategy, VECTOR_STRATEGIES)
        _one_of("SAMPLER", self.sampler, SAMPLERS)
        _at_least("COUNT", self.count, 1)
        _at_least("ERODE_POLYGONS", self.erode_polygons, 0)
        if self.min_distance is not None:
            _at_least("MIN_DISTANCE", self.min_distance, 1)
        _share("PERCENT", self.percent)
        if self.strategy == "byclass" and not self.rates_file:
            raise BadInput("STRATEGY byclass needs RATES_FILE.", "Give a CSV file with each class and its samples.")


@dataclass(frozen=True)
class PolygonStatisticsResult:
    """An XML file of pixels per class and per feature; ``counts`` holds the class's text -> pixels."""

    output: str
    counts: Dict[str, int]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class PolygonStatistics(Job):
    """Pixels per class and per feature on the grid of a raster (OTB PolygonClassStatistics)."""

    kind: ClassVar[str] = "polygonstatistics"
    runner: ClassVar[str] = "engine.polygonstatistics:polygon_statistics"
    result_type: ClassVar[Type[Any]] = PolygonStatisticsResult
    inputs: ClassVar[Tuple[str, ...]] = ("vector", "raster", "mask")

    vector: VectorSource
    field: str
    raster: RasterSource
    output: str
    mask: Optional[RasterSource] = None


@dataclass(frozen=True)
class PatchSelectionResult:
    """Footprints written to ``output``; ``counts`` holds split -> patches ("" where they were not split)."""

    output: str
    patch_count: int
    counts: Dict[str, int]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class SelectPatches(Job):
    """Footprints of patches on a grid or at random places, with a split (OTBTF PatchesSelection)."""

    kind: ClassVar[str] = "selectpatches"
    runner: ClassVar[str] = "engine.gridding:select_patches"
    result_type: ClassVar[Type[Any]] = PatchSelectionResult
    inputs: ClassVar[Tuple[str, ...]] = ("source", "labels", "strata")

    source: RasterSource
    output: str
    mode: str = "grid"
    count: int = 1200
    min_labelled: float = 0.1
    patch_size: int = 256
    step: int = 256
    offset: int = 0
    labels: Optional[RasterSource] = None
    split: str = "none"
    block_size: Optional[float] = None
    guard: Optional[float] = None
    strata: Optional[VectorSource] = None
    train_share: float = 0.6
    validation_share: float = 0.2
    seed: int = 0
    unit: str = "pixels"

    def __post_init__(self) -> None:
        _one_of("MODE", self.mode, PATCH_MODES)
        _one_of("SPLIT", self.split, PATCH_SPLITS)
        _one_of("UNIT", self.unit, LENGTH_UNITS)
        _at_least("COUNT", self.count, 1)
        _at_least("PATCH_SIZE", self.patch_size, 1)
        _at_least("STEP", self.step, 1)
        _at_least("OFFSET", self.offset, -1)
        _at_least("BLOCK_SIZE", 1 if self.block_size is None else self.block_size, 1 if self.unit == "pixels" else 0)
        _at_least("GUARD", 0 if self.guard is None else self.guard, 0)
        _share("MIN_LABELLED", self.min_labelled)
        _share("TRAIN_SHARE", self.train_share)
        _share("VALIDATION_SHARE", self.validation_share)
        _share("TRAIN_SHARE + VALIDATION_SHARE", self.train_share + self.validation_share)
        if self.split not in ("none", "chessboard") and not self.train_share > 0:
            raise BadInput("TRAIN_SHARE is 0.", "Give a share above 0.")
        if self.split == "strata" and self.strata is None:
            raise BadInput("SPLIT strata needs STRATA.", "Give a layer of polygons, in each of which to split.")
        if self.split == "balanced" and self.labels is None:
            raise BadInput("SPLIT balanced needs LABELS.", "Give a raster of classes on the image's grid.")
        if self.split == "chessboard" and self.mode != "grid":
            raise BadInput(
                f"SPLIT chessboard has no squares in MODE {self.mode}.", "Choose MODE grid, or SPLIT blocks."
            )


RATES_MODES = ("proportional", "equal", "custom")


@dataclass(frozen=True)
class SamplingRatesResult:
    """A folder with rates_1.csv, ... in the order of the statistics."""

    output_folder: str
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingRates(Job):
    """One budget of samples for several images (OTB MultiImageSamplingRate).

    Attributes:
        statistics: files of `PolygonStatistics`, one per image.
        counts: custom: the count or share of each image.
        rates_files: byclass: one file, or one per image (custom).
    """

    kind: ClassVar[str] = "samplingrates"
    runner: ClassVar[str] = "engine.samplingrates:sampling_rates"
    result_type: ClassVar[Type[Any]] = SamplingRatesResult
    outputs: ClassVar[Tuple[str, ...]] = ("output_folder",)
    folders: ClassVar[Tuple[str, ...]] = ("output_folder",)
    inputs: ClassVar[Tuple[str, ...]] = ("statistics", "rates_files")

    statistics: Tuple[str, ...]
    output_folder: str
    strategy: str = "upto"
    mode: str = "proportional"
    count: int = 1000
    percent: float = 0.5
    counts: Tuple[float, ...] = ()
    rates_files: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("STRATEGY", self.strategy, VECTOR_STRATEGIES)
        _one_of("MODE", self.mode, RATES_MODES)
        _at_least("INPUTS", len(self.statistics), 1)
        _at_least("COUNT", self.count, 1)
        _share("PERCENT", self.percent)
        custom, images = self.mode == "custom", len(self.statistics)
        files = images if custom else 1
        if self.strategy == "byclass" and len(self.rates_files) != files:
            raise BadInput(
                f"STRATEGY byclass with MODE {self.mode} needs {files} RATES_FILES; {len(self.rates_files)} are given.",
                "Give one file per image in the order of INPUTS with MODE custom, else one for all.",
            )
        if not custom or self.strategy in ("byclass", "smallest", "all"):
            return
        if len(self.counts) != images:
            raise BadInput(
                f"MODE custom needs {images} COUNTS, one per image; {len(self.counts)} are given.",
                "Give numbers separated by commas, in the order of INPUTS.",
            )
        for number in self.counts:
            if self.strategy == "percent":
                _share("COUNTS", number)
            elif number < 1 or number != int(number):
                raise BadInput(f"COUNTS holds {number:g}.", "Give whole numbers of 1 or more.")


@dataclass(frozen=True)
class SplitResult:
    """Features with a field ``split`` or ``fold``; ``counts`` holds its value -> class value (as text) -> features."""

    output: str
    counts: Dict[str, Dict[str, int]]
    dropped: int
    marked: int = 0
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitSamples(Job):
    """Training, validation and test parts that do not touch, or folds, stratified by class."""

    kind: ClassVar[str] = "splitsamples"
    runner: ClassVar[str] = "engine.splitting:split_samples"
    result_type: ClassVar[Type[Any]] = SplitResult
    inputs: ClassVar[Tuple[str, ...]] = ("samples", "raster")

    samples: VectorSource
    field: str
    output: str
    method: str = "auto"
    raster: Optional[RasterSource] = None
    block_size: Optional[float] = None
    guard: Optional[float] = None
    train_share: float = 0.6
    validation_share: float = 0.2
    seed: int = 0
    column: str = ""
    unit: str = "pixels"
    folds: int = 0
    near: str = "drop"

    def __post_init__(self) -> None:
        _one_of("METHOD", self.method, SPLIT_METHODS)
        _one_of("UNIT", self.unit, LENGTH_UNITS)
        _one_of("NEAR", self.near, NEAR_RULES)
        _at_least("FOLDS", self.folds, 0)
        if self.folds == 1:
            raise BadInput("FOLDS is 1, which leaves nothing to train on.", "Give 2 or more, or 0 for no folds.")
        _share("TRAIN_SHARE", self.train_share)
        _share("VALIDATION_SHARE", self.validation_share)
        _share("TRAIN_SHARE + VALIDATION_SHARE", self.train_share + self.validation_share)


ALLOCATIONS = ("proportional", "neyman", "equal")


@dataclass(frozen=True)
class AssessmentSampleResult:
    """A blind probability sample of a map; ``counts`` holds class value (as text) -> points.

    ``standard_error`` is that of the overall accuracy, if the expected accuracies hold. ``strata`` holds class value
    (as text) -> stratum, name, pixels, share, samples and weight: the key that the points do not carry.
    """

    output: str
    key: str
    sample_count: int
    standard_error: float
    counts: Dict[str, int]
    strata: Dict[str, Any]
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class AssessmentSample(Job):
    """A stratified random sample of a map for its accuracy assessment (Olofsson et al. 2014).

    ``class_accuracies`` holds class value (as text) -> expected user's accuracy, where it is not ``expected_accuracy``.
    """

    kind: ClassVar[str] = "assessmentsample"
    runner: ClassVar[str] = "engine.assessmentsampling:assessment_sample"
    result_type: ClassVar[Type[Any]] = AssessmentSampleResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "key")
    inputs: ClassVar[Tuple[str, ...]] = ("map",)

    map: RasterSource
    output: str
    key: str = ""
    total: Optional[int] = None
    target_se: float = 0.01
    expected_accuracy: float = 0.8
    class_accuracies: Dict[str, float] = field(default_factory=dict)
    allocation: str = "proportional"
    minimum: int = 50
    seed: int = 0
    legend: Legend = Legend()

    def __post_init__(self) -> None:
        _one_of("ALLOCATION", self.allocation, ALLOCATIONS)
        _at_least("MINIMUM", self.minimum, 2)
        _share("EXPECTED_ACCURACY", self.expected_accuracy)
        for value, accuracy in self.class_accuracies.items():
            _share(f"The accuracy of class {value} in CLASS_ACCURACIES", accuracy)
        if self.total is not None:
            _at_least("TOTAL", self.total, 1)
        if not self.target_se > 0:
            raise BadInput(f"TARGET_SE is {self.target_se:g}, not above 0.", "Give e.g. 0.01, one percent.")


UNKNOWN_COLOURS = ("ignore", "error")


@dataclass(frozen=True)
class LabelsFromColoursResult:
    """A class raster; ``unknown_pixels`` had a colour of no class and are no-data."""

    output: str
    unknown_pixels: int
    nodata_value: int
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelsFromColours(Job):
    """A class raster from a label image whose classes are told by their colours."""

    kind: ClassVar[str] = "labelsfromcolours"
    runner: ClassVar[str] = "engine.colours:labels_from_colours"
    result_type: ClassVar[Type[Any]] = LabelsFromColoursResult
    inputs: ClassVar[Tuple[str, ...]] = ("source",)

    source: RasterSource
    output: str
    legend: Legend = Legend()
    tolerance: int = 0
    unknown: str = "ignore"

    def __post_init__(self) -> None:
        _one_of("UNKNOWN", self.unknown, UNKNOWN_COLOURS)
        _at_least("TOLERANCE", self.tolerance, 0)


# --- patches ---------------------------------------------------------------------------------------------------------

EDGES = ("reject", "reflect")
NODATA_RULES = ("any", "all", "auto")
# Sources of patches that a dataset may have; the parameters are INPUT, INPUT2 ...
MOST_SOURCES = 4


@dataclass(frozen=True)
class PatchesResult:
    """A patch dataset folder and its footprints.

    ``counts`` holds class value (as text) -> accepted patches, or labelled pixels where every pixel has a class;
    ``shared_patches`` those that share pixels with a patch of another split.
    """

    output: str
    footprints: str
    accepted: int
    rejected: int
    counts: Dict[str, int]
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()
    shared_patches: int = 0


@dataclass(frozen=True)
class ExtractPatches(Job):
    """Cut a patch around every sample point, or in every footprint, into a patch dataset (OTBTF PatchesExtraction).

    ``labels`` or ``label_features`` give every pixel of the patches a class; ``field`` is not read then. Features
    without a ``label_field`` are of one class, 1; with ``background`` what holds no label is class 0. A size of 0 in
    ``more_patch_sizes`` stands for the ground that a patch of ``source`` covers.
    """

    kind: ClassVar[str] = "extractpatches"
    runner: ClassVar[str] = "engine.patches:extract_patches"
    result_type: ClassVar[Type[Any]] = PatchesResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "footprints")
    folders: ClassVar[Tuple[str, ...]] = ("output",)
    inputs: ClassVar[Tuple[str, ...]] = (
        "source", "samples", "crosswalk", "more_sources", "labels", "label_features",
    )  # fmt: skip

    source: RasterSource
    samples: VectorSource
    field: str
    output: str
    footprints: str = ""
    patch_size: int = 9
    edge: str = "reject"
    scale: Optional[float] = None
    offset: Optional[float] = None
    nodata_rule: str = "auto"
    max_nodata: float = 0.0
    classes: Tuple[int, ...] = ()
    crosswalk: str = ""
    legend: Legend = Legend()
    more_sources: Tuple[RasterSource, ...] = ()
    more_patch_sizes: Tuple[int, ...] = ()
    labels: Optional[RasterSource] = None
    label_features: Optional[VectorSource] = None
    label_field: str = ""
    background: bool = False

    @property
    def dense(self) -> bool:
        """Tell whether every pixel of the patches gets a class."""
        return self.labels is not None or self.label_features is not None

    def __post_init__(self) -> None:
        _one_of("EDGE", self.edge, EDGES)
        _one_of("NODATA_RULE", self.nodata_rule, NODATA_RULES)
        _at_least("PATCH_SIZE", self.patch_size, 1)
        _share("MAX_NODATA", self.max_nodata)
        if self.labels is not None and self.label_features is not None:
            raise BadInput("LABELS and LABEL_FEATURES are both given.", "Give one of them.")
        if self.background and not self.dense:
            raise BadInput("BACKGROUND is set, but there are no labels.", "Give LABELS or LABEL_FEATURES.")
        if len(self.more_sources) >= MOST_SOURCES:
            raise BadInput(f"{len(self.more_sources) + 1} sources are given.", f"Give at most {MOST_SOURCES}.")
        for number, size in enumerate(self.more_patch_sizes, start=2):
            _at_least(f"PATCH_SIZE{number}", size, 0)


PARTS = ("none", "train", "validation", "test")
EXPORTED_PARTS = ("all", "train", "validation", "test")


@dataclass(frozen=True)
class ImportPatches(Job):
    """Turn patch images and their labels into a patch dataset (the images of OTBTF PatchesExtraction).

    ``scale`` and ``offset`` hold for all sources; ``split`` is what all patches are for.
    """

    kind: ClassVar[str] = "importpatches"
    runner: ClassVar[str] = "engine.patchimages:import_patches"
    result_type: ClassVar[Type[Any]] = PatchesResult
    folders: ClassVar[Tuple[str, ...]] = ("output",)
    inputs: ClassVar[Tuple[str, ...]] = ("source", "labels", "more_sources")

    source: RasterSource
    labels: RasterSource
    output: str
    more_sources: Tuple[RasterSource, ...] = ()
    patch_size: Optional[int] = None
    split: str = "none"
    scale: Optional[float] = None
    offset: Optional[float] = None
    legend: Legend = Legend()

    def __post_init__(self) -> None:
        _one_of("SPLIT", self.split, PARTS)


@dataclass(frozen=True)
class ExportPatchesResult:
    """A folder of patch images; ``counts`` holds class value (as text, as it was written) -> patches."""

    output_folder: str
    patch_count: int
    counts: Dict[str, int]
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportPatches(Job):
    """Write a patch dataset as patch images and a label image (the images of OTBTF PatchesExtraction)."""

    kind: ClassVar[str] = "exportpatches"
    runner: ClassVar[str] = "engine.patchimages:export_patches"
    result_type: ClassVar[Type[Any]] = ExportPatchesResult
    outputs: ClassVar[Tuple[str, ...]] = ("output_folder",)
    folders: ClassVar[Tuple[str, ...]] = ("output_folder",)
    inputs: ClassVar[Tuple[str, ...]] = ("dataset",)

    dataset: str
    output_folder: str
    split: str = "all"
    renumber: bool = False

    def __post_init__(self) -> None:
        _one_of("SPLIT", self.split, EXPORTED_PARTS)


# --- training --------------------------------------------------------------------------------------------------------

CLASS_WEIGHTS = ("balanced", "none")
AUGMENTATIONS = ("flips", "full", "none")
MONITORS = ("loss", "kappa", "macro_f1", "mean_iou")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("full", "fast")
SPLITS_BY = ("own", "scene")
CROSS_VALIDATIONS = ("none", "scene")
FOREST_FEATURES = ("pixel", "window")
FOREST_PRESETS = ("default", "otb")


@dataclass(frozen=True)
class TrainResult:
    """A trained model. The numbers are those of ``accuracy_set`` (test, validation or none -> None).

    ``metrics`` is the plain form of the report: per-class precision, recall, F1, IoU, support, the confusion matrix and
    the class values it is ordered by.
    """

    output: str
    report: str
    accuracy_set: str
    overall_accuracy: Optional[float]
    kappa: Optional[float]
    macro_f1: Optional[float]
    mean_iou: Optional[float]
    metrics: Dict[str, Any]
    best_epoch: int
    parameter_count: int
    shared_pixels: int
    warnings: Tuple[str, ...] = ()


def _check_scenes(job: Any) -> None:
    """Raise where a trainer is told two ways to judge its model."""
    _one_of("SPLIT_BY", job.split_by, SPLITS_BY)
    _one_of("CROSS_VALIDATION", job.cross_validation, CROSS_VALIDATIONS)
    given = {"TEST": job.test, "TEST_SCENES": job.test_scenes, "VALIDATION": job.validation}
    names = [name for name, value in given.items() if value]
    if job.cross_validation != "none" and names:
        raise BadInput(
            f"CROSS_VALIDATION leaves every scene out in turn, but {names[0]} is given too.",
            f"Leave {' and '.join(names)} empty, or set CROSS_VALIDATION to none.",
        )
    if job.test and job.test_scenes:
        raise BadInput("TEST and TEST_SCENES are both given.", "Give one of them: what the model is judged on.")


@dataclass(frozen=True)
class TrainClassifier(Job):
    """Train a network that gives one class per patch (OTBTF TensorflowModelTrain)."""

    kind: ClassVar[str] = "trainclassifier"
    runner: ClassVar[str] = "engine.training:train_classifier"
    result_type: ClassVar[Type[Any]] = TrainResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "report")
    inputs: ClassVar[Tuple[str, ...]] = ("training", "more_datasets", "validation", "test", "initial_model")
    device_field: ClassVar[str] = "device_choice"
    distributed: ClassVar[bool] = True

    training: str
    output: str
    validation: str = ""
    test: str = ""
    validation_share: float = 0.2
    network: str = "compact_cnn"
    network_arguments: Dict[str, Any] = field(default_factory=dict)
    epochs: int = 50
    batch_size: Optional[int] = None
    learning_rate: Optional[float] = None
    class_weights: str = "balanced"
    augmentation: str = "flips"
    patience: int = 10
    monitor: str = "loss"
    initial_model: str = ""
    seed: int = 0
    device_choice: str = "auto"
    report: str = ""
    more_datasets: Tuple[str, ...] = ()
    split_by: str = "own"
    test_scenes: Tuple[str, ...] = ()
    cross_validation: str = "none"

    def __post_init__(self) -> None:
        _one_of("CLASS_WEIGHTS", self.class_weights, CLASS_WEIGHTS)
        _one_of("AUGMENTATION", self.augmentation, AUGMENTATIONS)
        _one_of("MONITOR", self.monitor, MONITORS)
        _one_of("DEVICE", self.device_choice, DEVICES)
        _share("VALIDATION_SHARE", self.validation_share)
        _check_scenes(self)
        _at_least("EPOCHS", self.epochs, 1)
        _at_least("PATIENCE", self.patience, 0)
        if self.batch_size is not None:
            _at_least("BATCH_SIZE", self.batch_size, 1)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise BadInput(
                f"LEARNING_RATE is {self.learning_rate:g}, not above 0.", "Leave it unset or give e.g. 0.001."
            )


SEGMENTATION_LOSSES = ("cross_entropy", "focal", "dice", "lovasz", "tversky")
SEGMENTATION_RECIPES = ("default", "otbtf", "course", "notebook")
OPTIMIZERS = ("auto", "adamw", "adam", "sgd", "muon")
TARGET_KINDS = ("auto", "binary", "classes")
SEGMENTATION_WEIGHTS = ("balanced", "none", "auto")


@dataclass(frozen=True)
class TrainSegmenter(Job):
    """Train a network that gives one class per pixel, from dense patch datasets or straight from a raster.

    Exactly one of ``training`` (a dense patch dataset) and ``source`` (a raster, with ``labels`` or ``label_features``)
    is given. What is None or empty is as the recipe and the network have it.

    Attributes:
        training: folder of a patch dataset with a class for every pixel.
        source: raster that windows are read from while training.
        labels: raster of classes, of any grid.
        label_features: features with a class, in place of ``labels``.
        label_field: their field; empty = all of them are of one class, 1, named as the layer.
        background: pixels outside all features are class 0, "background"; otherwise they are ignored.
        areas: polygons whose ``area_field`` says what is inside them: train, validation or test; None = the whole
            raster, ``validation_share`` of it by blocks for validation.
        patch_size: pixels on a side of the windows.
        windows: windows of an epoch.
        ignore_class: class value that no loss and no number counts.
        target: binary (one logit, for two classes) or classes; auto = binary where there are two classes.
        loss: one of SEGMENTATION_LOSSES, or several joined by +.
        find_rate: find the learning rate by a range test.
        threshold: binary: probability from which the second class is mapped; None = chosen on the validation part.
    """

    kind: ClassVar[str] = "trainsegmenter"
    runner: ClassVar[str] = "engine.segmentation:train_segmenter"
    result_type: ClassVar[Type[Any]] = TrainResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "report")
    inputs: ClassVar[Tuple[str, ...]] = (
        "training", "more_datasets", "validation", "test", "source", "labels", "label_features", "areas",
        "initial_model",
    )  # fmt: skip
    device_field: ClassVar[str] = "device_choice"
    distributed: ClassVar[bool] = True

    output: str
    training: str = ""
    more_datasets: Tuple[str, ...] = ()
    validation: str = ""
    test: str = ""
    validation_share: float = 0.2
    source: Optional[RasterSource] = None
    labels: Optional[RasterSource] = None
    label_features: Optional[VectorSource] = None
    label_field: str = ""
    background: bool = False
    areas: Optional[VectorSource] = None
    area_field: str = "split"
    patch_size: int = 256
    windows: Optional[int] = None
    nodata_rule: str = "auto"
    legend: Legend = Legend()
    ignore_class: Optional[int] = None
    network: str = "unet"
    network_arguments: Dict[str, Any] = field(default_factory=dict)
    recipe: str = "default"
    target: str = "auto"
    loss: str = ""
    optimizer: str = "auto"
    class_weights: str = "auto"
    augmentation: str = "flips"
    epochs: Optional[int] = None
    batch_size: Optional[int] = None
    learning_rate: Optional[float] = None
    find_rate: bool = False
    patience: Optional[int] = None
    monitor: str = ""
    threshold: Optional[float] = None
    initial_model: str = ""
    seed: int = 0
    device_choice: str = "auto"
    precision: str = "full"
    report: str = ""
    resume: bool = True
    split_by: str = "own"
    test_scenes: Tuple[str, ...] = ()

    # Leaving each scene out in turn is for trainings of minutes.
    cross_validation: ClassVar[str] = "none"

    def __post_init__(self) -> None:
        _check_scenes(self)
        _one_of("RECIPE", self.recipe, SEGMENTATION_RECIPES)
        _one_of("TARGET", self.target, TARGET_KINDS)
        _one_of("OPTIMIZER", self.optimizer, OPTIMIZERS)
        _one_of("CLASS_WEIGHTS", self.class_weights, SEGMENTATION_WEIGHTS)
        _one_of("AUGMENTATION", self.augmentation, AUGMENTATIONS)
        _one_of("DEVICE", self.device_choice, DEVICES)
        _one_of("PRECISION", self.precision, PRECISIONS)
        _one_of("NODATA_RULE", self.nodata_rule, NODATA_RULES)
        for name in filter(None, self.loss.split("+")):
            _one_of("LOSS", name, SEGMENTATION_LOSSES)
        if self.monitor:
            _one_of("MONITOR", self.monitor, MONITORS)
        if bool(self.training) == (self.source is not None):
            raise BadInput(
                "Give exactly one of TRAINING and INPUT.",
                "TRAINING is a patch dataset with a class for every pixel; INPUT is a raster that is read while "
                "training, with LABELS or LABEL_FEATURES.",
            )
        labels = (self.labels is not None) + (self.label_features is not None)
        if labels != (self.source is not None):
            if self.source is not None:
                given = "LABELS and LABEL_FEATURES are both given" if labels else "INPUT has no labels"
                raise BadInput(f"{given}.", "Give one of LABELS and LABEL_FEATURES: where the classes come from.")
            raise BadInput("TRAINING has its own labels, but LABELS or LABEL_FEATURES is given.", "Leave them empty.")
        self._check_numbers()

    def _check_numbers(self) -> None:
        _share("VALIDATION_SHARE", self.validation_share)
        _at_least("PATCH_SIZE", self.patch_size, 8)
        least = {"WINDOWS": (self.windows, 1), "EPOCHS": (self.epochs, 1), "BATCH_SIZE": (self.batch_size, 1),
                 "PATIENCE": (self.patience, 0)}  # fmt: skip
        for name, (value, low) in least.items():
            if value is not None:
                _at_least(name, value, low)
        if self.threshold is not None:
            _share("THRESHOLD", self.threshold)
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise BadInput(
                f"LEARNING_RATE is {self.learning_rate:g}, not above 0.", "Leave it unset or give e.g. 0.001."
            )


@dataclass(frozen=True)
class TrainRandomForest(Job):
    """Train a Random Forest on the centre pixel, or on it with the mean and deviation of the patch."""

    kind: ClassVar[str] = "trainrandomforest"
    runner: ClassVar[str] = "engine.forest:train_random_forest"
    result_type: ClassVar[Type[Any]] = TrainResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "report")
    inputs: ClassVar[Tuple[str, ...]] = ("training", "more_datasets", "validation", "test")

    training: str
    output: str
    validation: str = ""
    test: str = ""
    validation_share: float = 0.2
    features: str = "pixel"
    trees: int = 100
    preset: str = "default"
    seed: int = 0
    report: str = ""
    more_datasets: Tuple[str, ...] = ()
    split_by: str = "own"
    test_scenes: Tuple[str, ...] = ()
    cross_validation: str = "none"

    def __post_init__(self) -> None:
        _one_of("FEATURES", self.features, FOREST_FEATURES)
        _one_of("PRESET", self.preset, FOREST_PRESETS)
        _share("VALIDATION_SHARE", self.validation_share)
        _check_scenes(self)
        _at_least("TREES", self.trees, 1)


# --- mapping ---------------------------------------------------------------------------------------------------------

PROBABILITY_TYPES = ("float32", "uint8")
RUNTIMES = ("auto", "onnxruntime", "torch", "openvino")
BORDERS = ("reflect", "nodata")
DAMAGED_BLOCKS = ("error", "nodata")
ORIENTATIONS = ("none", "flips", "full")
PRIORS = ("training", "equal", "estimated", "file")
RASTER_FORMATS = ("geotiff", "cog")


@dataclass(frozen=True)
class ClassifyResult:
    """A class raster. ``class_areas``: class value (as text) -> {name, pixels, hectares}; hectares None without CRS."""

    output: str
    probabilities: str
    confidence: str
    pixels: int
    seconds: float
    nodata_value: int
    class_areas: Dict[str, Any]
    classes: Tuple[ClassEntry, ...]
    device: str
    warnings: Tuple[str, ...] = ()
    entropy: str = ""
    margin: str = ""


@dataclass(frozen=True)
class Classify(Job):
    """Map a raster with a trained model (OTBTF TensorflowModelServe), on the input's own grid.

    ``resume``: finished windows are kept beside the output until the job is done, so that the same job continues.
    ``overlap``: pixels beyond each window, for networks of one class per pixel; None = what the network looks at.
    ``tta``: the scene is also looked at flipped (4 orientations) or turned as well (8); ``more_models``: further ones.
    The probabilities of all of them are averaged.
    ``priors``: how frequent the classes are expected to be; ``priors_file``: CSV of class and share.
    ``threshold``: of two classes: probability from which the second is mapped; None = the model's own, else the larger.
    """

    kind: ClassVar[str] = "classify"
    runner: ClassVar[str] = "engine.inference:classify"
    result_type: ClassVar[Type[Any]] = ClassifyResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "probabilities", "confidence", "entropy", "margin")
    inputs: ClassVar[Tuple[str, ...]] = ("source", "model", "mask", "mask_layer", "more_models", "priors_file")
    device_field: ClassVar[str] = "device_choice"

    source: RasterSource
    model: str
    output: str
    probabilities: str = ""
    confidence: str = ""
    extent: Optional[Extent] = None
    box: Optional[Tuple[int, int, int, int]] = None
    continue_anyway: bool = False
    device_choice: str = "auto"
    entropy: str = ""
    margin: str = ""
    probability_type: str = "float32"
    format: str = "geotiff"
    resume: bool = True
    memory: Optional[int] = None
    mask: Optional[RasterSource] = None
    mask_layer: Optional[VectorSource] = None
    border: str = "reflect"
    min_confidence: Optional[float] = None
    damaged: str = "error"
    overlap: Optional[int] = None
    runtime: str = "auto"
    precision: str = "full"
    tta: str = "none"
    more_models: Tuple[str, ...] = ()
    priors: str = "training"
    priors_file: str = ""
    threshold: Optional[float] = None

    def __post_init__(self) -> None:
        _one_of("PRIORS", self.priors, PRIORS)
        if (self.priors == "file") != bool(self.priors_file):
            raise BadInput(
                f"PRIORS is {self.priors}, and PRIORS_FILE is {'given' if self.priors_file else 'missing'}.",
                "Empty PRIORS_FILE, or choose file as PRIORS." if self.priors_file else "Give PRIORS_FILE.",
            )
        if self.threshold is not None:
            _share("THRESHOLD", self.threshold)
        _one_of("TTA", self.tta, ORIENTATIONS)
        _one_of("DEVICE", self.device_choice, DEVICES)
        _one_of("RUNTIME", self.runtime, RUNTIMES)
        _one_of("PRECISION", self.precision, PRECISIONS)
        if self.overlap is not None:
            _at_least("OVERLAP", self.overlap, 0)
        _one_of("BORDER", self.border, BORDERS)
        _one_of("DAMAGED", self.damaged, DAMAGED_BLOCKS)
        if self.memory is not None:
            _at_least("MEMORY", self.memory, 1)
        if self.min_confidence is not None:
            _share("MIN_CONFIDENCE", self.min_confidence)
        if self.mask is not None and self.mask_layer is not None:
            raise BadInput("The mask is given twice, as a raster and as a layer of polygons.", "Give one of them.")
        _one_of("PROBABILITY_TYPE", self.probability_type, PROBABILITY_TYPES)
        _one_of("FORMAT", self.format, RASTER_FORMATS)
        if self.extent is not None and self.box is not None:
            raise BadInput("Both EXTENT and BOX are given.", "Give one of them.")
        if self.box is not None:
            _at_least("BOX width", self.box[2], 1)
            _at_least("BOX height", self.box[3], 1)


@dataclass(frozen=True)
class VectoriseResult:
    """Polygons in ``output``; ``counts``: class value (as text) -> polygons; ``area``: of all, square metres."""

    output: str
    polygon_count: int
    counts: Dict[str, int]
    area: float
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Vectorise(Job):
    """Polygons from a class map; ``min_area`` in square metres, ``simplify`` in pixels."""

    kind: ClassVar[str] = "vectorise"
    runner: ClassVar[str] = "engine.vectorising:vectorise"
    result_type: ClassVar[Type[Any]] = VectoriseResult
    inputs: ClassVar[Tuple[str, ...]] = ("source",)

    source: RasterSource
    output: str
    classes: Tuple[int, ...] = ()
    min_area: float = 0.0
    simplify: float = 1.0
    legend: Legend = Legend()

    def __post_init__(self) -> None:
        _at_least("MIN_AREA", self.min_area, 0)
        _at_least("SIMPLIFY", self.simplify, 0)


# --- assessment ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssessResult:
    """Accuracy of a map. ``metrics`` as in TrainResult; ``groups`` = number of reference polygons.

    There are none (0) of a raster, nor of polygons on BACKGROUND, which are compared pixel by pixel likewise.
    ``shared_pixels`` lie in the training area; with LEAVE_OUT_TRAINING none of them is compared.
    Further keys of ``metrics``: unmapped, eroded, reach, and where they are asked for left_out (LEAVE_OUT_TRAINING),
    design (intervals), whole (with the pixels that ERODE leaves out), polygons, calibration.
    """

    output: str
    matrix: str
    overall_accuracy: Optional[float]
    kappa: Optional[float]
    macro_f1: Optional[float]
    mean_iou: Optional[float]
    sample_count: int
    groups: int
    shared_pixels: int
    metrics: Dict[str, Any]
    warnings: Tuple[str, ...] = ()
    areas: str = ""


DESIGNS = ("none", "stratified", "clusters")


@dataclass(frozen=True)
class Assess(Job):
    """Compare a map with a reference raster, or with reference points or polygons.

    ``training``: the patch dataset of the map's model; empty = as the model's card tells. ``leave_out_training``: what
    of the reference lies in the training area is left out of all numbers. ``background``: the map outside all polygons
    of ``samples`` is class 0, "background"; without a ``field`` the polygons are of one class, 1.
    """

    kind: ClassVar[str] = "assess"
    runner: ClassVar[str] = "engine.assessment:assess"
    result_type: ClassVar[Type[Any]] = AssessResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "matrix", "areas")
    inputs: ClassVar[Tuple[str, ...]] = ("map", "reference", "samples", "training", "crosswalk", "probabilities")

    map: RasterSource
    output: str = ""
    matrix: str = ""
    reference: Optional[RasterSource] = None
    samples: Optional[VectorSource] = None
    field: str = ""
    training: str = ""
    legend: Legend = Legend()
    crosswalk: str = ""
    erode: int = 0
    design: str = "none"
    cluster_field: str = ""
    block_size: Optional[int] = None
    probabilities: Optional[RasterSource] = None
    areas: str = ""
    leave_out_training: bool = False
    background: bool = False

    def __post_init__(self) -> None:
        _at_least("ERODE", self.erode, 0)
        _one_of("DESIGN", self.design, DESIGNS)
        if (self.reference is None) == (self.samples is None):
            raise BadInput(
                "Give exactly one of REFERENCE and REFERENCE_SAMPLES.",
                "REFERENCE is a raster of reference classes, REFERENCE_SAMPLES points or polygons with a class FIELD.",
            )
        if self.background and self.reference is not None:
            raise BadInput(
                "BACKGROUND is for polygons as REFERENCE_SAMPLES, not for a REFERENCE raster.",
                "Leave it out, and give the background a class in the raster.",
            )
        if self.samples is not None and not self.field and not self.background:
            raise BadInput("REFERENCE_SAMPLES needs FIELD.", "Name the field that holds the reference class.")
        self._check_design()

    def _check_design(self) -> None:
        clusters, raster = self.design == "clusters", self.reference is not None
        # Pixels of the background lie in no polygon: what covers the map is drawn again in blocks, as a raster is.
        covering = raster or self.background
        if self.design == "stratified" and raster:
            raise BadInput(
                "DESIGN stratified is for REFERENCE_SAMPLES, not for a raster.",
                "Give the labelled points of 'Sample a map for its assessment'.",
            )
        if self.design == "stratified" and self.background:
            raise BadInput(
                "DESIGN stratified is for points, BACKGROUND for polygons.",
                "Leave BACKGROUND out, or choose the DESIGN clusters with BLOCK_SIZE, or none.",
            )
        if self.cluster_field and self.background:
            raise BadInput(
                f"CLUSTER_FIELD '{self.cluster_field}' tells no cluster of the BACKGROUND, which lies in no polygon.",
                "Leave it empty, and give BLOCK_SIZE with DESIGN clusters.",
            )
        if clusters and covering and self.block_size is None:
            what = "of a REFERENCE raster" if raster else "with BACKGROUND, which lies in no polygon,"
            raise BadInput(
                f"DESIGN clusters {what} needs BLOCK_SIZE.",
                "Give the side of the blocks in pixels of the map, larger than the distance at which errors are alike.",
            )
        if self.block_size is not None:
            _at_least("BLOCK_SIZE", self.block_size, 1)
            if not (clusters and covering):
                raise BadInput(
                    "BLOCK_SIZE is for DESIGN clusters of a REFERENCE raster, or of polygons with BACKGROUND.",
                    "Leave it empty, or choose these.",
                )
        if self.cluster_field and (raster or not clusters):
            raise BadInput(
                "CLUSTER_FIELD is for REFERENCE_SAMPLES with DESIGN clusters.", "Leave it empty, or choose both."
            )
        if self.areas and self.design != "stratified":
            raise BadInput(
                "AREAS are estimated from DESIGN stratified alone.",
                "Choose it with the points of 'Sample a map for its assessment', or leave AREAS out.",
            )


COMPARED = ("kappa", "overall_accuracy", "macro_f1", "mean_iou")


@dataclass(frozen=True)
class CompareRunsResult:
    """What the first group that is not the baseline's has over it: mean of the paired differences, its error, in words.

    ``verdict`` is adds, harms, "no improvement" (within two standard errors) or unknown (less than three pairs, or
    pairs that all differ by the same).
    """

    output: str
    csv: str
    difference: Optional[float]
    standard_error: Optional[float]
    verdict: str
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class CompareRuns(Job):
    """Compare trained models over several seeds: what a band, a network or a setting adds."""

    kind: ClassVar[str] = "compareruns"
    runner: ClassVar[str] = "engine.comparison:compare_runs"
    result_type: ClassVar[Type[Any]] = CompareRunsResult
    outputs: ClassVar[Tuple[str, ...]] = ("output", "csv")
    inputs: ClassVar[Tuple[str, ...]] = ("models", "baseline")

    models: Tuple[str, ...]
    output: str = ""
    csv: str = ""
    baseline: str = ""
    metric: str = "kappa"

    def __post_init__(self) -> None:
        _one_of("METRIC", self.metric, COMPARED)
        _at_least("The number of INPUTS", len(set(self.models)), 2)


# --- workflows -------------------------------------------------------------------------------------------------------

RANDOM_FOREST = "random_forest"


@dataclass(frozen=True)
class IsMyAccuracyRealResult:
    """Mean kappa over the seeds by way of splitting; None where it is not defined."""

    report: str
    random_kappa: Optional[float]
    polygon_kappa: Optional[float]
    block_kappa: Optional[float]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class IsMyAccuracyReal(Job):
    """Train with the same patches split at random, by polygon, and by block with a guard.

    ``network`` is one of patches, or `RANDOM_FOREST`; the seeds are 0 to ``seeds`` - 1.
    """

    kind: ClassVar[str] = "ismyaccuracyreal"
    runner: ClassVar[str] = "engine.splitcomparison:is_my_accuracy_real"
    result_type: ClassVar[Type[Any]] = IsMyAccuracyRealResult
    outputs: ClassVar[Tuple[str, ...]] = ("report",)
    inputs: ClassVar[Tuple[str, ...]] = ("training",)
    device_field: ClassVar[str] = "device_choice"

    training: str
    report: str = ""
    network: str = "compact_cnn"
    epochs: int = 30
    seeds: int = 3
    test_share: float = 0.3
    device_choice: str = "auto"

    def __post_init__(self) -> None:
        _one_of("DEVICE", self.device_choice, DEVICES)
        _at_least("EPOCHS", self.epochs, 1)
        _at_least("SEEDS", self.seeds, 1)
        _inner_share("TEST_SHARE", self.test_share)


@dataclass(frozen=True)
class DoesContextHelpResult:
    """A folder with a map (``maps``) and a model of each patch size, and the report."""

    output_folder: str
    report: str
    maps: Tuple[str, ...]
    classes: Tuple[ClassEntry, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class DoesContextHelp(Job):
    """Train on patches of several sizes at the same points, and beside them a Random Forest; map with each.

    ``sizes``: patch sizes in pixels, 1 (the pixel alone) or 5 and more; ``test_share`` where the points have no split.
    """

    kind: ClassVar[str] = "doescontexthelp"
    runner: ClassVar[str] = "engine.contextcomparison:does_context_help"
    result_type: ClassVar[Type[Any]] = DoesContextHelpResult
    outputs: ClassVar[Tuple[str, ...]] = ("output_folder", "report")
    folders: ClassVar[Tuple[str, ...]] = ("output_folder",)
    inputs: ClassVar[Tuple[str, ...]] = ("source", "samples")
    device_field: ClassVar[str] = "device_choice"

    source: RasterSource
    samples: VectorSource
    field: str
    output_folder: str
    report: str = ""
    sizes: Tuple[int, ...] = (1, 5, 9, 16)
    epochs: int = 30
    seeds: int = 3
    test_share: float = 0.3
    extent: Optional[Extent] = None
    legend: Legend = Legend()
    device_choice: str = "auto"

    def __post_init__(self) -> None:
        _one_of("DEVICE", self.device_choice, DEVICES)
        _at_least("EPOCHS", self.epochs, 1)
        _at_least("SEEDS", self.seeds, 1)
        _inner_share("TEST_SHARE", self.test_share)
        if len(set(self.sizes)) < 2:
            raise BadInput("SIZES names less than two patch sizes.", "Give several, e.g. 1, 5, 9, 16.")
        wrong = [size for size in self.sizes if size != 1 and size < 5]
        if wrong:
            raise BadInput(
                f"SIZES holds {wrong[0]}, which no network takes.", "Give 1 (the pixel alone) and sizes of 5 or more."
            )


def _inner_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise BadInput(f"{name} is {value:g}, which leaves one part empty.", "Give a value between 0 and 1, e.g. 0.3.")


# --- tools -----------------------------------------------------------------------------------------------------------

NORMALISE_METHODS = ("max", "minmax", "zscore", "expression")


@dataclass(frozen=True)
class NormaliseResult:
    """A float32 raster, one band per input band (or per expression)."""

    output: str
    bands: Tuple[str, ...]
    warnings: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Normalise(Job):
    """Stack and normalise bands (the tutorial's BandMathX step)."""

    kind: ClassVar[str] = "normalise"
    runner: ClassVar[str] = "engine.normalising:normalise"
    result_type: ClassVar[Type[Any]] = NormaliseResult
    inputs: ClassVar[Tuple[str, ...]] = ("source",)

    source: RasterSource
    output: str
    method: str = "max"
    expression: str = ""

    def __post_init__(self) -> None:
        _one_of("METHOD", self.method, NORMALISE_METHODS)
        if self.method == "expression" and not self.expression.strip():
            raise BadInput("METHOD expression needs EXPRESSION.", "Write one, e.g. (B4 - B3) / (B4 + B3).")


JOBS: Tuple[Type[Job], ...] = (
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
)
JOBS_BY_KIND: Dict[str, Type[Job]] = {job.kind: job for job in JOBS}


def job_to_plain(job: Job) -> Dict[str, Any]:
    """Return the JSON form of a job: its kind and its fields."""
    return {"kind": job.kind, "job": to_plain(job)}


def job_from_plain(data: Mapping[str, Any]) -> Job:
    """Build a job from its JSON form.

    Raises:
        BadInput: the kind is unknown (the valid ones are listed) or a field is wrong (it is named).
    """
    cls = JOBS_BY_KIND.get(str(data.get("kind")))
    if cls is None:
        raise BadInput(f"There is no job '{data.get('kind')}'.", f"Valid jobs: {', '.join(JOBS_BY_KIND)}.")
    return from_plain(cls, data.get("job"), cls.kind)


def result_to_json(result: Any) -> str:
    """Return a result as one line of JSON."""
    return json.dumps(to_plain(result), ensure_ascii=False, sort_keys=True)
