"""Train a network that gives one class per pixel."""

from __future__ import annotations

from ...models.recipes import PRESETS
from ...models.registry import PIXEL_NETWORKS, network_entry
from ...tasks import jobs
from ...tasks.errors import BadInput
from .. import compat
from .. import parameters as p
from ..translate import tr
from .base import Trainer


class TrainSegmenter(Trainer):
    """trainsegmenter."""

    INPUT = "INPUT"
    STACK = "STACK"
    BANDS = "BANDS"
    EXPRESSIONS = "EXPRESSIONS"
    NODATA = "NODATA"
    NODATA_RULE = "NODATA_RULE"
    LABELS = "LABELS"
    LABEL_FEATURES = "LABEL_FEATURES"
    LABEL_FIELD = "LABEL_FIELD"
    BACKGROUND = "BACKGROUND"
    AREAS = "AREAS"
    AREA_FIELD = "AREA_FIELD"
    PATCH_SIZE = "PATCH_SIZE"
    WINDOWS = "WINDOWS"
    IGNORE_CLASS = "IGNORE_CLASS"
    NETWORK = "NETWORK"
    WIDTH = "WIDTH"
    DEPTH = "DEPTH"
    ENCODER = "ENCODER"
    PRETRAINED = "PRETRAINED"
    FULL_RESOLUTION = "FULL_RESOLUTION"
    RECIPE = "RECIPE"
    TARGET = "TARGET"
    THRESHOLD = "THRESHOLD"
    LOSS = "LOSS"
    OPTIMIZER = "OPTIMIZER"
    EPOCHS = "EPOCHS"
    BATCH_SIZE = "BATCH_SIZE"
    LEARNING_RATE = "LEARNING_RATE"
    FIND_RATE = "FIND_RATE"
    CLASS_WEIGHTS = "CLASS_WEIGHTS"
    AUGMENTATION = "AUGMENTATION"
    PATIENCE = "PATIENCE"
    MONITOR = "MONITOR"
    DEVICE = "DEVICE"
    PRECISION = "PRECISION"

    CURVES = True
    SUMMARY = (
        "Trains a network that gives every pixel a class (semantic segmentation). Fill in the image, and its labels as "
        "a raster or as features; or, in place of all three, the patch dataset in the advanced section, which was "
        "extracted with labels. The best epoch on the validation part is "
        "kept; the accuracy comes from the test part where there is one. While it trains, the panel Plugins > "
        "Deepscape > Training shows the curves and what the network makes of some windows."
    )

    def name(self):
        return "trainsegmenter"

    def displayName(self):
        return tr("Train a segmenter")

    def monitored(self, job):
        preset = PRESETS[job.recipe]
        patience = preset.patience if job.patience is None else job.patience
        return (job.monitor or preset.monitor) if patience else ""

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            self._data(),
            self._patch_datasets(),
            self._network(),
            self._recipe(),
            p.legend(),
            p.seed(),
            p.device(),
            p.choice(
                self.PRECISION,
                tr("Precision"),
                tr("fast: mixed precision, on a GPU alone."),
                jobs.PRECISIONS,
                advanced=True,
            ),
            self.results(),
        )
        self.add_numbers()

    def _patch_datasets(self):
        """Return what training from patch datasets takes: advanced, for an image and its labels need none of it."""
        # Leaving every scene out in turn is for trainings of minutes.
        found = [*self.datasets(optional=True), *self.scenes()]
        return [
            each if each.name() == self.VALIDATION_SHARE else p.described(each, each.help(), advanced=True)
            for each in found
            if each.name() != self.CROSS_VALIDATION
        ]

    def _data(self):
        return [
            *p.raster_source(
                tr("The image to learn from, with labels. Empty: the patch dataset is learned from (advanced)."),
                optional=True,
            ),
            p.raster(
                self.LABELS,
                tr("Labels: a raster"),
                tr("Raster with the class of every pixel, on any grid. What is no-data in it is not labelled."),
                optional=True,
            ),
            p.vector(
                self.LABEL_FEATURES,
                tr("Or label features"),
                tr(
                    "Polygons with the class of every pixel whose centre they hold, in place of a raster; pixels "
                    "claimed by two classes are not labelled."
                ),
                optional=True,
            ),
            p.field(
                self.LABEL_FIELD,
                tr("Class field of the label features"),
                tr("Field that holds the class. Empty: all features are of one class."),
                self.LABEL_FEATURES,
                optional=True,
            ),
            p.flag(
                self.BACKGROUND,
                tr("The rest is background"),
                tr(
                    "Pixels outside all label features are of a class of their own, 0 'background', as where all "
                    "buildings are drawn. Pixels of features without a class, or of two classes, are not labelled. "
                    "Otherwise pixels outside are not labelled either, and nothing is learned from them."
                ),
            ),
            p.vector(
                self.AREAS,
                tr("Areas"),
                tr(
                    "Polygons inside which the labels are used, for training, validation or test as a field says. "
                    "Empty: the whole image, and the validation share of it in blocks."
                ),
                compat.SOURCE_POLYGON,
                optional=True,
            ),
            p.field(
                self.AREA_FIELD,
                tr("Field of the areas"),
                tr("Field that holds train, validation or test. Empty: split."),
                self.AREAS,
                optional=True,
            ),
            p.integer(
                self.PATCH_SIZE,
                tr("Patch size in pixels"),
                tr(
                    "Side of the windows that are read from the image: a multiple of 32 from 96 on suits every "
                    "network. A patch dataset has its own size."
                ),
                default=256,
                minimum=8,
            ),
            p.integer(
                self.WINDOWS,
                tr("Windows per epoch"),
                tr("Random windows that make an epoch. Unset: by the size of the training area, and the recipe."),
                minimum=1,
                advanced=True,
            ),
            p.expressions(),
            p.integer(
                self.IGNORE_CLASS,
                tr("Class to ignore"),
                tr("Class value that nothing is learned from and no number counts. Unset: none."),
                advanced=True,
            ),
            p.nodata(),
            p.nodata_rule(),
        ]

    def _network(self):
        networks = " ".join(f"{entry.id}: {tr(entry.title)}. {tr(entry.help)}" for entry in PIXEL_NETWORKS)
        return [
            p.choice(self.NETWORK, tr("Network"), networks, [entry.id for entry in PIXEL_NETWORKS]),
            p.integer(
                self.WIDTH,
                tr("Width"),
                tr("Channels of a U-Net at full resolution: 16 is quick, 32 usual, 64 the paper's. Unset: its own."),
                minimum=1,
            ),
            p.integer(
                self.DEPTH, tr("Depth of unet"), tr("Poolings of a U-Net. Unset: its own, 4."), minimum=1, advanced=True
            ),
            p.text_value(
                self.ENCODER,
                tr("Encoder of the smp networks"),
                tr("Encoder of the smp networks, e.g. resnet34 or tu-efficientnet_b0. Empty: the network's own."),
                advanced=True,
            ),
            p.flag(
                self.PRETRAINED,
                tr("Pretrained encoder of the smp networks"),
                tr(
                    "Start the smp networks' encoders from weights that were learned from photographs, where this "
                    "machine can fetch them; where it cannot, the log says so and the start is random."
                ),
                default=True,
                advanced=True,
            ),
            p.flag(
                self.FULL_RESOLUTION,
                tr("Encoder at full resolution (smp_unet)"),
                tr(
                    "The encoder of smp_unet halves the image's resolution in its first step; leave that out. Edges "
                    "become sharper, and things of few pixels are found, such as houses 5 to 20 pixels wide; training "
                    "and mapping take about four times as long. resnet18, mobilenet_v2 and tu-efficientnet_b0 can do "
                    "without it, mit_b0 cannot."
                ),
                advanced=True,
            ),
        ]

    def _recipe(self):
        return [
            p.choice(
                self.RECIPE,
                tr("Recipe"),
                tr(
                    "What is not set below. default: AdamW with one rise and fall of the learning rate, cross-entropy "
                    "and Dice. course: that of the U-Net course (Adam 1e-4, batches of 64, 100 epochs). notebook: that "
                    "of the SegNet notebook (SGD, 10,000 windows per epoch, 50 epochs). otbtf: Adam 2e-4, batches of "
                    "100, 100 epochs. Before training the log tells how long it takes."
                ),
                jobs.SEGMENTATION_RECIPES,
            ),
            p.integer(
                self.EPOCHS,
                tr("Epochs"),
                tr("How often all windows are seen, at most. Unset: the recipe's; 50 for the default."),
                minimum=1,
            ),
            p.integer(
                self.PATIENCE,
                tr("Patience"),
                tr(
                    "Epochs without progress after which training stops. 0: no early stopping, the last epoch is kept. "
                    "Unset: the recipe's; 10 for the default."
                ),
                minimum=0,
            ),
            p.integer(
                self.BATCH_SIZE,
                tr("Batch size"),
                tr("Windows per step. Unset: the recipe's, or by the network and the data."),
                minimum=1,
                advanced=True,
            ),
            p.real(
                self.LEARNING_RATE,
                tr("Learning rate"),
                tr("Size of a step. Unset: the recipe's or the network's own."),
                minimum=0,
                advanced=True,
            ),
            p.flag(
                self.FIND_RATE,
                tr("Find the learning rate"),
                tr("Find it by a range test before training: about 60 steps with a rising rate."),
                advanced=True,
            ),
            p.text_value(
                self.LOSS,
                tr("Loss"),
                tr("One of {}, or several joined by +, e.g. cross_entropy+dice. Empty: the recipe's.").format(
                    ", ".join(jobs.SEGMENTATION_LOSSES)
                ),
                advanced=True,
            ),
            p.choice(
                self.OPTIMIZER,
                tr("Optimiser"),
                tr(
                    "auto: the recipe's or the network's. muon levels the steps of a weight matrix over all "
                    "directions: it takes fewer epochs than adamw, and learning rates about ten times as large."
                ),
                jobs.OPTIMIZERS,
                advanced=True,
            ),
            p.choice(
                self.CLASS_WEIGHTS,
                tr("Class weights"),
                tr(
                    "balanced: rare classes count as much as frequent ones, but for very rare ones. none: every pixel "
                    "counts the same. auto: as the recipe has it."
                ),
                jobs.SEGMENTATION_WEIGHTS,
                "auto",
                advanced=True,
            ),
            p.choice(
                self.AUGMENTATION,
                tr("Augmentation"),
                tr(
                    "flips: windows are also seen mirrored and turned by right angles. full: also enlarged, and with "
                    "other brightness, contrast and noise. none: as they are."
                ),
                jobs.AUGMENTATIONS,
                advanced=True,
            ),
            p.choice(
                self.TARGET,
                tr("Target"),
                tr(
                    "binary: one probability that parts two classes, with a threshold. classes: one score per class. "
                    "auto: binary where there are two classes."
                ),
                jobs.TARGET_KINDS,
                advanced=True,
            ),
            p.real(
                self.THRESHOLD,
                tr("Threshold"),
                tr(
                    "Binary: probability from which a pixel is of the second class. Unset: where its IoU is largest "
                    "on the validation part."
                ),
                minimum=0,
                maximum=1,
                advanced=True,
            ),
            p.choice(
                self.MONITOR,
                tr("Monitor"),
                tr("The number on the validation part by which the best epoch is chosen."),
                jobs.MONITORS,
                advanced=True,
            ),
            self.initial_model(),
        ]

    def job(self, values):
        output = values.output(self.OUTPUT)
        return jobs.TrainSegmenter(
            output=output,
            training=values.path(self.TRAINING),
            more_datasets=values.files(self.MORE_DATASETS),
            split_by=values.choice(self.SPLIT_BY),
            test_scenes=self.test_scenes(values),
            validation=values.path(self.VALIDATION),
            test=values.path(self.TEST),
            validation_share=values.real(self.VALIDATION_SHARE),
            source=self._source(values),
            labels=values.raster(self.LABELS, required=False),
            label_features=values.vector(self.LABEL_FEATURES, required=False),
            label_field=values.field(self.LABEL_FIELD),
            background=values.flag(self.BACKGROUND),
            areas=values.vector(self.AREAS, required=False),
            area_field=values.field(self.AREA_FIELD) or "split",
            patch_size=values.integer(self.PATCH_SIZE),
            windows=values.optional_integer(self.WINDOWS),
            nodata_rule=values.choice(self.NODATA_RULE),
            legend=self._legend(values),
            ignore_class=values.optional_integer(self.IGNORE_CLASS),
            network=values.choice(self.NETWORK),
            network_arguments=self._arguments(values),
            recipe=values.choice(self.RECIPE),
            target=values.choice(self.TARGET),
            loss=values.text(self.LOSS).replace(" ", "").lower(),
            optimizer=values.choice(self.OPTIMIZER),
            class_weights=values.choice(self.CLASS_WEIGHTS),
            augmentation=values.choice(self.AUGMENTATION),
            epochs=values.optional_integer(self.EPOCHS),
            batch_size=values.optional_integer(self.BATCH_SIZE),
            learning_rate=values.optional_real(self.LEARNING_RATE),
            find_rate=values.flag(self.FIND_RATE),
            patience=values.optional_integer(self.PATIENCE),
            monitor=values.choice(self.MONITOR),
            threshold=values.optional_real(self.THRESHOLD),
            initial_model=values.path(self.INITIAL_MODEL),
            seed=values.integer(self.SEED),
            device_choice=values.choice(self.DEVICE),
            precision=values.choice(self.PRECISION),
            report=values.output(self.REPORT),
            # Of no use beside a temporary output, whose name no other run has, nor with inputs that are copied anew.
            resume=values.continues(output),
        )

    def _source(self, values):
        if not values.given(self.INPUT):
            return None
        return values.raster(self.INPUT, self.STACK, self.BANDS, self.NODATA, expressions=self.EXPRESSIONS)

    def _legend(self, values):
        """Return names and colours of what holds the classes."""
        if values.given(self.LABELS):
            return values.legend(self.LABELS)
        if values.given(self.LABEL_FEATURES):
            return values.legend(self.LABEL_FEATURES, self.LABEL_FIELD)
        return values.legend()

    def _arguments(self, values):
        """Return the constructor arguments that are given; one that the network does not have is refused."""
        entry = network_entry(values.choice(self.NETWORK), PIXEL_NETWORKS)
        given = {
            self.WIDTH: values.optional_integer(self.WIDTH),
            self.DEPTH: values.optional_integer(self.DEPTH),
            self.ENCODER: values.text(self.ENCODER) or None,
            self.FULL_RESOLUTION: values.flag(self.FULL_RESOLUTION) or None,
        }
        arguments = {}
        for name, value in given.items():
            if value is None:
                continue
            if name.lower() not in entry.arguments:
                others = ", ".join(each.id for each in PIXEL_NETWORKS if name.lower() in each.arguments)
                raise BadInput(
                    f"{name} is {value}, but the network {entry.title} has no such setting.",
                    f"Leave {name} out, or choose a NETWORK that has it: {others}.",
                )
            arguments[name.lower()] = value
        if "pretrained" in entry.arguments:
            arguments["pretrained"] = values.flag(self.PRETRAINED)
        return arguments
