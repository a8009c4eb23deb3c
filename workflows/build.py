"""Write land_cover_from_polygons.model3; run it with QGIS's Python after a change of an algorithm's parameters.

    QGIS_PLUGINPATH=.build/plugins PYTHONPATH=.build/plugins python3 workflows/build.py

The child ids and the names of inputs and outputs are published: the outputs are called ``<child id>:<output>``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["QT_HASH_SEED"] = "0"  # Qt writes the attributes in the order of its hashes.

from qgis.core import (
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterDefinition,
)
from qgis.PyQt.QtCore import QPointF

TARGET = Path(__file__).with_name("land_cover_from_polygons.model3")

Source = QgsProcessingModelChildParameterSource
CHILD_WIDTH, ROW_HEIGHT = 260, 110


def of_input(name: str) -> Source:
    """Return the value of a model input."""
    return Source.fromModelParameter(name)


def of_child(child: str, output: str) -> Source:
    """Return an output of an earlier step."""
    return Source.fromChildOutput(child, output)


def fixed(value: Any) -> Source:
    """Return a value that stands in the model."""
    return Source.fromStaticValue(value)


def inputs() -> list[QgsProcessingParameterDefinition]:
    """Return the model's inputs, in the order of its dialog."""
    from deepscape.algorithms import compat
    from deepscape.algorithms import parameters as p
    from deepscape.models.registry import PATCH_NETWORKS

    return [
        p.raster("IMAGE", "Image", "The image to map."),
        p.vector("POLYGONS", "Training polygons", "Polygons with their class in a field: what is learned from.",
                 compat.SOURCE_POLYGON),
        p.field("FIELD", "Class field", "Field of the training polygons that holds the class.", "POLYGONS"),
        p.vector("REFERENCE", "Reference polygons",
                 "Other polygons with their class, not those for training: the map is compared with them.",
                 compat.SOURCE_POLYGON),
        p.field("REFERENCE_FIELD", "Class field of the reference", "Field of the reference polygons that holds the "
                "class.", "REFERENCE"),
        p.integer("PATCH_SIZE", "Patch size in pixels", "Side of the square that the network sees around a pixel.",
                  default=7, minimum=1),
        p.choice("NETWORK", "Network", "What is trained.", [entry.id for entry in PATCH_NETWORKS]),
        p.integer("EPOCHS", "Epochs", "How often all patches are seen, at most.", default=50, minimum=1),
        p.integer("SAMPLES_PER_CLASS", "Samples per class", "Pixels taken of each class, at most.", default=1000,
                  minimum=1),
        *p.legend(),
    ]  # fmt: skip


STEPS: list[tuple[str, str, str, dict[str, Source], dict[str, str]]] = [
    (
        "samples",
        "selectvectorsamples",
        "Select samples",
        {
            "INPUT": of_input("POLYGONS"),
            "FIELD": of_input("FIELD"),
            "RASTER": of_input("IMAGE"),
            "STRATEGY": fixed("upto"),
            "COUNT": of_input("SAMPLES_PER_CLASS"),
            "LEGEND": of_input("LEGEND"),
            "NOMENCLATURE": of_input("NOMENCLATURE"),
        },
        {},
    ),
    (
        "patches",
        "extractpatches",
        "Extract patches",
        {
            "INPUT": of_input("IMAGE"),
            "SAMPLES": of_child("samples", "OUTPUT"),
            "FIELD": fixed("class_id"),
            "PATCH_SIZE": of_input("PATCH_SIZE"),
            "EDGE": fixed("reflect"),
            "LEGEND": of_input("LEGEND"),
            "NOMENCLATURE": of_input("NOMENCLATURE"),
        },
        {},
    ),
    (
        "train",
        "trainclassifier",
        "Train",
        {
            "TRAINING": of_child("patches", "OUTPUT"),
            "NETWORK": of_input("NETWORK"),
            "EPOCHS": of_input("EPOCHS"),
        },
        {"OUTPUT": "Model", "REPORT": "Training report"},
    ),
    (
        "map",
        "classify",
        "Map",
        {"INPUT": of_input("IMAGE"), "MODEL": of_child("train", "OUTPUT")},
        {"OUTPUT": "Land-cover map", "CONFIDENCE": "Confidence"},
    ),
    (
        "assess",
        "assess",
        "Assess",
        {
            "INPUT": of_child("map", "OUTPUT"),
            "REFERENCE_SAMPLES": of_input("REFERENCE"),
            "FIELD": of_input("REFERENCE_FIELD"),
            # The pixels of a polygon are right or wrong together: intervals come from drawing whole polygons again.
            "DESIGN": fixed("clusters"),
        },
        {"OUTPUT": "Accuracy report"},
    ),
]
OPTIONAL_OUTPUTS = {("train", "REPORT"), ("map", "CONFIDENCE")}


def build() -> QgsProcessingModelAlgorithm:
    """Return the model."""
    model = QgsProcessingModelAlgorithm("Land cover from polygons", "Workflows")
    for row, definition in enumerate(inputs()):
        component = QgsProcessingModelParameter(definition.name())
        component.setPosition(QPointF(120, 60 + row * 70))
        model.addModelParameter(definition, component)
    model.setParameterOrder([definition.name() for definition in inputs()])
    for row, (child_id, algorithm, description, sources, outputs) in enumerate(STEPS):
        child = QgsProcessingModelChildAlgorithm(f"deepscape:{algorithm}")
        if not child.reattach():
            raise RuntimeError(f"There is no algorithm {algorithm}")
        child.setChildId(child_id)
        child.setDescription(description)
        child.setPosition(QPointF(480 + row * 40, 60 + row * ROW_HEIGHT))
        for definition in child.algorithm().parameterDefinitions():
            name, default = definition.name(), definition.defaultValue()
            if name in sources:
                child.addParameterSources(name, [sources[name]])
            elif default is not None and not definition.isDestination():
                child.addParameterSources(name, [fixed(default)])
        results = {}
        for name, title in outputs.items():
            output = QgsProcessingModelOutput(name, title)
            output.setChildId(child_id)
            output.setChildOutputName(name)
            output.setPosition(QPointF(480 + CHILD_WIDTH + row * 40, 60 + row * ROW_HEIGHT + 60 * len(results)))
            output.setMandatory((child_id, name) not in OPTIONAL_OUTPUTS)
            results[name] = output
        child.setModelOutputs(results)
        model.addChildAlgorithm(child)
    model.setHelpContent(
        {
            "ALG_DESC": "From an image and polygons to a land-cover map, in one run: selects samples in the training "
            "polygons, extracts patches, trains a network, maps the image, and compares the map with the reference "
            "polygons. The accuracy comes with 95 % intervals, by bootstrap over these polygons.",
            **{definition.name(): definition.help() for definition in inputs()},
        }
    )
    model.updateDestinationParameters()
    return model


def main() -> int:
    """Write the file; return the exit code."""
    application = QgsApplication([], False)
    application.initQgis()
    sys.path.append(str(Path(QgsApplication.pkgDataPath()) / "python" / "plugins"))
    from processing.core.Processing import Processing

    Processing.initialize()
    from deepscape.plugin import DeepscapePlugin

    plugin = DeepscapePlugin(None)
    plugin.initProcessing()
    model = build()
    valid, problems = model.validate()
    if not valid:
        sys.stderr.write("\n".join(problems) + "\n")
        return 1
    model.toFile(str(TARGET))
    plugin.unload()
    application.exitQgis()
    return 0


if __name__ == "__main__":
    sys.exit(main())
