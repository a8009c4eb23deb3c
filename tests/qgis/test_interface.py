"""The published interface: ids, names, values, outputs and help."""

import pytest
from deepscape.algorithms import compat
from qgis.core import QgsApplication, QgsProcessingParameterFeatureSource

SOURCE = ["INPUT", "STACK", "BANDS"]
LEGEND = ["LEGEND", "NOMENCLATURE"]
DATASETS = [
    "TRAINING", "VALIDATION", "TEST", "VALIDATION_SHARE", "MORE_DATASETS", "SPLIT_BY", "TEST_SCENES",
    "CROSS_VALIDATION",
]  # fmt: skip
NUMBERS = ["OVERALL_ACCURACY", "KAPPA", "MACRO_F1", "MEAN_IOU"]
TRAINED = ["OUTPUT", "REPORT", *NUMBERS, "METRICS", "BEST_EPOCH", "ACCURACY_SET"]

VECTOR_STRATEGIES = ["upto", "smallest", "constant", "percent", "total", "byclass", "all"]

# Published: what stands here never changes and never goes; what is new is added.
PUBLISHED = {
    "selectsamples": (
        (
            "INPUT BAND STRATEGY COUNT SAMPLER EXTENT NODATA PAD MIN_DISTANCE SEED CLASSES CROSSWALK LEGEND "
            "NOMENCLATURE OUTPUT REPORT"
        ).split(),
        ["OUTPUT", "REPORT", "SAMPLE_COUNT", "COUNTS"],
    ),
    "selectvectorsamples": (
        [
            "INPUT", "FIELD", "RASTER", "STRATEGY", "COUNT", "PERCENT", "RATES_FILE", "SAMPLER", "MASK",
            "ERODE_POLYGONS", "MIN_DISTANCE", "SEED", "CLASSES", "CROSSWALK", *LEGEND, "OUTPUT", "RATES", "REPORT",
        ],
        ["OUTPUT", "RATES", "REPORT", "SAMPLE_COUNT", "COUNTS"],
    ),
    "polygonstatistics": (["INPUT", "FIELD", "RASTER", "MASK", "OUTPUT"], ["OUTPUT", "COUNTS"]),
    "selectpatches": (
        [
            "INPUT", "MODE", "PATCH_SIZE", "STEP", "COUNT", "LABELS", "MIN_LABELLED", "SPLIT", "TRAIN_SHARE",
            "VALIDATION_SHARE", "STRATA", "UNIT", "BLOCK_SIZE", "GUARD", "OFFSET", "NODATA", "SEED", "OUTPUT",
        ],
        ["OUTPUT"],
    ),
    "samplingrates": (
        ["INPUTS", "STRATEGY", "MODE", "COUNT", "PERCENT", "COUNTS", "RATES_FILES", "OUTPUT_FOLDER"],
        ["OUTPUT_FOLDER"],
    ),
    "splitsamples": (
        [
            "INPUT", "FIELD", "METHOD", "TRAIN_SHARE", "VALIDATION_SHARE", "RASTER", "COLUMN", "UNIT", "BLOCK_SIZE",
            "GUARD", "NEAR", "FOLDS", "SEED", "OUTPUT",
        ],
        ["OUTPUT"],
    ),
    "assessmentsample": (
        "INPUT TOTAL TARGET_SE EXPECTED_ACCURACY CLASS_ACCURACIES ALLOCATION MINIMUM SEED OUTPUT KEY".split(),
        ["OUTPUT", "KEY", "SAMPLE_COUNT", "STANDARD_ERROR", "COUNTS", "STRATA"],
    ),
    "labelsfromcolours": (["INPUT", *LEGEND, "TOLERANCE", "UNKNOWN", "OUTPUT"], ["OUTPUT", "UNKNOWN_PIXELS"]),
    "extractpatches": (
        [
            *SOURCE, "SAMPLES", "FIELD", "LABELS", "LABEL_FEATURES", "LABEL_FIELD", "BACKGROUND", "PATCH_SIZE", "EDGE",
            *LEGEND,
            "SCALE", "OFFSET", "EXPRESSIONS", "NODATA", "NODATA_RULE", "MAX_NODATA",
            *(f"{name}{n}" for n in (2, 3, 4) for name in (*SOURCE, "NODATA", "PATCH_SIZE")),
            "CLASSES", "CROSSWALK", "OUTPUT", "FOOTPRINTS",
        ],
        ["OUTPUT", "FOOTPRINTS", "ACCEPTED", "REJECTED", "SHARED_PATCHES"],
    ),
    "importpatches": (
        [
            "INPUT", "LABELS", "SPLIT", *LEGEND, "INPUT2", "INPUT3", "INPUT4", "PATCH_SIZE", "NODATA", "SCALE",
            "OFFSET", "OUTPUT",
        ],
        ["OUTPUT", "ACCEPTED"],
    ),
    "exportpatches": (["INPUT", "SPLIT", "RENUMBER", "OUTPUT_FOLDER"], ["OUTPUT_FOLDER", "PATCH_COUNT"]),
    "trainclassifier": (
        [
            *DATASETS, "NETWORK", "EPOCHS", "PATIENCE", "BATCH_SIZE", "LEARNING_RATE", "CLASS_WEIGHTS", "AUGMENTATION",
            "MONITOR", "INITIAL_MODEL", "SEED", "DEVICE", "OUTPUT", "REPORT",
        ],
        TRAINED,
    ),
    "trainsegmenter": (
        [
            *SOURCE, "LABELS", "LABEL_FEATURES", "LABEL_FIELD", "BACKGROUND", "AREAS", "AREA_FIELD", "PATCH_SIZE",
            "WINDOWS", "EXPRESSIONS", "IGNORE_CLASS", "NODATA", "NODATA_RULE",
            *(name for name in DATASETS if name != "CROSS_VALIDATION"),
            "NETWORK", "WIDTH", "DEPTH", "ENCODER", "PRETRAINED", "FULL_RESOLUTION", "RECIPE", "EPOCHS", "PATIENCE",
            "BATCH_SIZE", "LEARNING_RATE", "FIND_RATE", "LOSS", "OPTIMIZER", "CLASS_WEIGHTS", "AUGMENTATION", "TARGET",
            "THRESHOLD", "MONITOR", "INITIAL_MODEL", *LEGEND, "SEED", "DEVICE", "PRECISION", "OUTPUT", "REPORT",
        ],
        TRAINED,
    ),
    "trainrandomforest": ([*DATASETS, "FEATURES", "TREES", "PRESET", "SEED", "OUTPUT", "REPORT"], TRAINED),
    "classify": (
        [
            *SOURCE, "MODEL", "EXTENT", "BOX", "CONTINUE", "DEVICE", "OUTPUT", "PROBABILITIES", "CONFIDENCE",
            "ENTROPY", "MARGIN", "PROBABILITY_TYPE", "FORMAT", "OVERLAP", "RUNTIME", "PRECISION",
            "MASK", "BORDER", "MIN_CONFIDENCE", "DAMAGED", "MEMORY", "TTA", "MODELS", "PRIORS",
            "PRIORS_FILE", "THRESHOLD", "NODATA",
        ],
        "OUTPUT PROBABILITIES CONFIDENCE ENTROPY MARGIN PIXELS SECONDS NODATA_VALUE CLASS_AREAS".split(),
    ),
    "vectorise": (
        ["INPUT", "CLASSES", "MIN_AREA", "SIMPLIFY", "LEGEND", "NOMENCLATURE", "OUTPUT"],
        ["OUTPUT", "POLYGON_COUNT", "AREA"],
    ),
    "assess": (
        [
            "INPUT", "REFERENCE_SAMPLES", "FIELD", "REFERENCE", "TRAINING", "OUTPUT", "MATRIX", "CROSSWALK", "ERODE",
            "DESIGN", "CLUSTER_FIELD", "BLOCK_SIZE", "PROBABILITIES", "AREAS", "LEAVE_OUT_TRAINING", "BACKGROUND",
        ],
        ["OUTPUT", "MATRIX", "AREAS", *NUMBERS, "SAMPLE_COUNT"],
    ),
    "compareruns": (
        ["INPUTS", "BASELINE", "METRIC", "OUTPUT", "CSV"],
        ["OUTPUT", "CSV", "DIFFERENCE", "STANDARD_ERROR", "VERDICT"],
    ),
    "ismyaccuracyreal": (
        ["TRAINING", "NETWORK", "EPOCHS", "SEEDS", "TEST_SHARE", "DEVICE", "REPORT"],
        ["REPORT", "RANDOM_KAPPA", "POLYGON_KAPPA", "BLOCK_KAPPA"],
    ),
    "doescontexthelp": (
        [
            *SOURCE, "SAMPLES", "FIELD", "SIZES", "EPOCHS", "SEEDS", "EXTENT", *LEGEND, "TEST_SHARE", "EXPRESSIONS",
            "NODATA", "DEVICE", "REPORT", "OUTPUT_FOLDER",
        ],
        ["REPORT", "OUTPUT_FOLDER"],
    ),
    "normalise": ([*SOURCE, "METHOD", "EXPRESSION", "NODATA", "OUTPUT"], ["OUTPUT"]),
    "modelinfo": (["MODEL", "OUTPUT"], ["OUTPUT", "JSON", "NETWORK", "CLASSES"]),
    "setupengine": (
        ["ACTION", "BUILD", "INTERPRETER", "WHEELS", "EXTRAS"],
        ["PYTHON", "DEVICE", "LOG", "INSTALLED_EXTRAS"],
    ),
    "enginestatus": (["OUTPUT"], ["OUTPUT", "READY", "REPORT", "DEVICE"]),
    "landcoverfrompolygons": (
        [
            "IMAGE", "POLYGONS", "FIELD", "REFERENCE", "REFERENCE_FIELD", "PATCH_SIZE", "NETWORK", "EPOCHS",
            "SAMPLES_PER_CLASS", *LEGEND, "assess:OUTPUT", "map:CONFIDENCE", "map:OUTPUT", "train:OUTPUT",
            "train:REPORT",
        ],
        ["assess:OUTPUT", "map:CONFIDENCE", "map:OUTPUT", "train:OUTPUT", "train:REPORT"],
    ),
}  # fmt: skip

# Parameter -> its published values; the first is the default.
ENUMS = {
    ("selectsamples", "STRATEGY"): ["upto", "constant", "total", "smallest", "all"],
    ("selectvectorsamples", "STRATEGY"): VECTOR_STRATEGIES,
    ("samplingrates", "STRATEGY"): VECTOR_STRATEGIES,
    ("samplingrates", "MODE"): ["proportional", "equal", "custom"],
    ("selectsamples", "SAMPLER"): ["spread", "random", "periodic"],
    ("splitsamples", "METHOD"): ["auto", "polygons", "blocks", "random", "scene", "column"],
    ("splitsamples", "UNIT"): ["pixels", "metres", "map"],
    ("splitsamples", "NEAR"): ["drop", "mark"],
    ("selectpatches", "MODE"): ["grid", "random"],
    ("selectpatches", "UNIT"): ["pixels", "metres", "map"],
    ("selectpatches", "SPLIT"): "none chessboard proportions blocks subtiles strata balanced".split(),
    ("extractpatches", "EDGE"): ["reject", "reflect"],
    ("extractpatches", "NODATA_RULE"): ["any", "all", "auto"],
    ("importpatches", "SPLIT"): ["none", "train", "validation", "test"],
    ("exportpatches", "SPLIT"): ["all", "train", "validation", "test"],
    ("assessmentsample", "ALLOCATION"): ["proportional", "neyman", "equal"],
    ("labelsfromcolours", "UNKNOWN"): ["ignore", "error"],
    ("extractpatches", "NOMENCLATURE"): ["none", "tokyo", "worldcover", "corine1", "isprs", "oso", "dynamicworld"],
    ("trainclassifier", "CLASS_WEIGHTS"): ["balanced", "none"],
    ("trainclassifier", "AUGMENTATION"): ["flips", "full", "none"],
    ("trainclassifier", "MONITOR"): ["loss", "kappa", "macro_f1", "mean_iou"],
    ("trainclassifier", "SPLIT_BY"): ["own", "scene"],
    ("trainclassifier", "CROSS_VALIDATION"): ["none", "scene"],
    ("trainsegmenter", "RECIPE"): ["default", "otbtf", "course", "notebook"],
    ("trainsegmenter", "OPTIMIZER"): ["auto", "adamw", "adam", "sgd", "muon"],
    ("trainsegmenter", "CLASS_WEIGHTS"): ["balanced", "none", "auto"],
    ("trainsegmenter", "AUGMENTATION"): ["flips", "full", "none"],
    ("trainsegmenter", "TARGET"): ["auto", "binary", "classes"],
    ("trainsegmenter", "MONITOR"): ["loss", "kappa", "macro_f1", "mean_iou"],
    ("trainsegmenter", "PRECISION"): ["full", "fast"],
    ("trainrandomforest", "FEATURES"): ["pixel", "window"],
    ("trainrandomforest", "PRESET"): ["default", "otb"],
    ("classify", "DEVICE"): ["auto", "cpu", "cuda"],
    ("classify", "PROBABILITY_TYPE"): ["float32", "uint8"],
    ("classify", "FORMAT"): ["geotiff", "cog"],
    ("classify", "RUNTIME"): ["auto", "onnxruntime", "torch", "openvino"],
    ("classify", "PRECISION"): ["full", "fast"],
    ("classify", "BORDER"): ["reflect", "nodata"],
    ("classify", "DAMAGED"): ["error", "nodata"],
    ("classify", "TTA"): ["none", "flips", "full"],
    ("classify", "PRIORS"): ["training", "equal", "estimated", "file"],
    ("assess", "DESIGN"): ["none", "stratified", "clusters"],
    ("compareruns", "METRIC"): ["kappa", "overall_accuracy", "macro_f1", "mean_iou"],
    ("normalise", "METHOD"): ["max", "minmax", "zscore", "expression"],
    ("setupengine", "ACTION"): ["install", "repair", "remove"],
    ("setupengine", "BUILD"): ["auto", "cpu", "cuda"],
    ("setupengine", "EXTRAS"): ["openvino"],
}

DEFAULTS = {
    ("setupengine", "EXTRAS"): None,
    ("selectsamples", "COUNT"): 1000,
    ("selectsamples", "NODATA"): None,
    ("selectvectorsamples", "PERCENT"): 0.5,
    ("selectvectorsamples", "RATES"): None,
    ("selectvectorsamples", "ERODE_POLYGONS"): 0,
    ("selectvectorsamples", "MIN_DISTANCE"): None,
    ("selectsamples", "MIN_DISTANCE"): None,
    ("selectsamples", "REPORT"): None,
    ("selectsamples", "BAND"): 1,
    ("extractpatches", "PATCH_SIZE"): 9,
    ("extractpatches", "SCALE"): None,
    ("extractpatches", "FIELD"): "class_id",
    # A value that came later than the others.
    ("extractpatches", "NODATA_RULE"): "auto",
    ("extractpatches", "PATCH_SIZE2"): None,
    ("importpatches", "PATCH_SIZE"): None,
    ("importpatches", "NODATA"): None,
    ("exportpatches", "RENUMBER"): False,
    ("trainclassifier", "EPOCHS"): 50,
    ("trainclassifier", "PATIENCE"): 10,
    ("trainclassifier", "BATCH_SIZE"): None,
    ("trainclassifier", "VALIDATION_SHARE"): 0.2,
    ("trainclassifier", "NETWORK"): "compact_cnn",
    ("trainsegmenter", "NETWORK"): "unet",
    ("trainsegmenter", "EPOCHS"): None,
    ("trainsegmenter", "PATIENCE"): None,
    ("trainsegmenter", "WIDTH"): None,
    ("trainsegmenter", "PATCH_SIZE"): 256,
    ("trainsegmenter", "THRESHOLD"): None,
    ("trainsegmenter", "NODATA_RULE"): "auto",
    ("trainsegmenter", "CLASS_WEIGHTS"): "auto",
    ("assessmentsample", "TOTAL"): None,
    ("assessmentsample", "TARGET_SE"): 0.01,
    ("assessmentsample", "EXPECTED_ACCURACY"): 0.8,
    ("assessmentsample", "MINIMUM"): 50,
    ("labelsfromcolours", "TOLERANCE"): 0,
    ("selectpatches", "COUNT"): 1200,
    ("selectpatches", "MIN_LABELLED"): 0.1,
    ("selectpatches", "PATCH_SIZE"): 256,
    ("selectpatches", "STEP"): 256,
    ("selectpatches", "OFFSET"): 0,
    ("selectpatches", "NODATA"): None,
    ("selectpatches", "TRAIN_SHARE"): 0.6,
    ("selectpatches", "VALIDATION_SHARE"): 0.2,
    ("splitsamples", "TRAIN_SHARE"): 0.6,
    ("splitsamples", "BLOCK_SIZE"): None,
    ("splitsamples", "FOLDS"): 0,
    ("doescontexthelp", "SIZES"): None,
    ("doescontexthelp", "EPOCHS"): 30,
    ("doescontexthelp", "SEEDS"): 3,
    ("doescontexthelp", "TEST_SHARE"): 0.3,
    ("ismyaccuracyreal", "NETWORK"): "compact_cnn",
    ("ismyaccuracyreal", "EPOCHS"): 30,
    ("ismyaccuracyreal", "SEEDS"): 3,
    ("ismyaccuracyreal", "TEST_SHARE"): 0.3,
    ("trainrandomforest", "TREES"): 100,
    ("assess", "BLOCK_SIZE"): None,
    ("assess", "AREAS"): None,
    ("assess", "BACKGROUND"): False,
    ("classify", "CONTINUE"): False,
    ("classify", "MIN_CONFIDENCE"): None,
    ("classify", "MEMORY"): None,
    ("classify", "MODELS"): None,
}

ALL = sorted(PUBLISHED)


def test_the_ids_are_the_published_ones(plugin):
    assert sorted(algorithm.name() for algorithm in plugin.provider.algorithms()) == ALL
    assert plugin.provider.id() == "deepscape"


@pytest.mark.parametrize("name", ALL)
def test_names_of_parameters_and_outputs(algorithm, name):
    parameters, outputs = PUBLISHED[name]
    found = algorithm(name)
    assert [definition.name() for definition in found.parameterDefinitions()] == parameters
    assert sorted(definition.name() for definition in found.outputDefinitions()) == sorted(outputs)


@pytest.mark.parametrize("name", ALL)
def test_everything_has_help(algorithm, name):
    found = algorithm(name)
    assert found.displayName() and found.group() and found.groupId() and found.shortDescription() is not None
    assert len(found.shortHelpString()) > 80
    for definition in found.parameterDefinitions():
        assert definition.help().strip(), definition.name()
        assert definition.description() != definition.name()
    assert not found.icon().isNull()


@pytest.mark.parametrize("name", [name for name in ALL if name != "landcoverfrompolygons"])
def test_help_page_names_every_parameter_and_output(algorithm, name):
    found = algorithm(name)
    page = found.shortHelpString().replace("&#x27;", "'")
    for definition in [*found.parameterDefinitions(), *found.outputDefinitions()]:
        assert f"<b>{definition.description()}</b>: " in page, definition.name()
    assert found.helpUrl().startswith("https://")
    assert found.flags() & compat.CAN_CANCEL
    assert not found.flags() & compat.NO_THREADING


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("assessmentsample", "divided by the squared error, which is 1600 for 0.8 and 0.01"),
        ("vectorise", "All polygons are held in memory: a million take 5 to 8 gigabytes"),
    ],
)
def test_help_tells_where_numbers_come_from_and_what_limits_a_run(algorithm, name, told):
    assert told in algorithm(name).shortHelpString()


@pytest.mark.parametrize("name", ALL)
def test_enums_are_static_strings_that_the_help_lists(algorithm, name):
    found = algorithm(name)
    for definition in found.parameterDefinitions():
        if definition.type() == "enum":
            assert definition.usesStaticStrings()
            assert definition.defaultValue() == DEFAULTS.get((name, definition.name()), definition.options()[0])
            for option in definition.options():
                assert option in definition.help()


@pytest.mark.parametrize(("name", "parameter"), list(ENUMS))
def test_enum_values(algorithm, name, parameter):
    found = algorithm(name)
    assert found.parameterDefinition(parameter).options() == ENUMS[name, parameter]


@pytest.mark.parametrize(("name", "parameter"), list(DEFAULTS))
def test_defaults(algorithm, name, parameter):
    found = algorithm(name)
    assert found.parameterDefinition(parameter).defaultValue() == DEFAULTS[name, parameter]


@pytest.mark.parametrize("name", ALL)
def test_the_parent_of_a_field_is_a_vector_source(algorithm, name):
    found = algorithm(name)
    for definition in found.parameterDefinitions():
        if definition.type() == "field":
            parent = found.parameterDefinition(definition.parentLayerParameterName())
            assert isinstance(parent, QgsProcessingParameterFeatureSource)


def test_groups_are_the_published_steps(plugin):
    steps = {algorithm.groupId() for algorithm in plugin.provider.algorithms()}
    assert steps == {"sampling", "patches", "training", "mapping", "assessment", "tools", "workflows"}


def test_output_names_can_be_filled_in_by_the_batch_dialog(algorithm):
    # The batch dialog makes output names of a single raster layer; a list of layers has no name.
    classify, train = algorithm("classify"), algorithm("trainclassifier")
    assert classify.parameterDefinition("INPUT").type() == "raster"
    assert classify.flags() & compat.SUPPORTS_BATCH
    assert classify.parameterDefinition("OUTPUT").defaultFileExtension() == "tif"
    assert train.parameterDefinition("OUTPUT").defaultFileExtension() == "safetensors"


def test_algorithms_are_found_by_their_full_id(plugin):
    assert QgsApplication.processingRegistry().algorithmById("deepscape:classify") is not None
