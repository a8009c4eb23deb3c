"""The designer workflow: its steps, and a whole run with a worker that plays."""

import json
from types import SimpleNamespace

import pytest
from deepscape.tests.qgis.layers import CLASSES, memory_polygons, save
from qgis import utils
from qgis.core import (
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingModelAlgorithm,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsVectorLayer,
)


def test_its_steps_are_the_published_ones(algorithm):
    workflow = algorithm("landcoverfrompolygons")
    children = workflow.childAlgorithms()
    assert {child_id: child.algorithmId() for child_id, child in children.items()} == {
        "samples": "deepscape:selectvectorsamples",
        "patches": "deepscape:extractpatches",
        "train": "deepscape:trainclassifier",
        "map": "deepscape:classify",
        "assess": "deepscape:assess",
    }
    assert workflow.validate() == (True, [])
    assert workflow.displayName() == "Land cover from polygons"


def test_it_opens_in_the_designer(plugin, algorithm):
    opened = QgsProcessingModelAlgorithm()
    assert opened.fromFile(algorithm("landcoverfrompolygons").sourceFilePath())
    assert opened.validate() == (True, []) and opened.name() == "Land cover from polygons"


@pytest.fixture
def played(play, points_file, image):
    play("selectvectorsamples", {"copy": [points_file, "$output"]}, {"result": {"classes": CLASSES}})
    play("extractpatches", {"mkdir": "$output"}, {"result": {"accepted": 2, "classes": CLASSES}})
    play("trainclassifier", {"write": ["$output", "weights"]}, {"result": {"accuracy_set": "validation"}})
    play("classify", {"copy": [image, "$output"]}, {"result": {"classes": CLASSES}})
    play("assess", {"write": ["$output", "<html>"]}, {"result": {"kappa": 0.97}})
    return play


def test_a_whole_run(run, played, polygons_file, image, tmp_path):
    outputs = run(
        "landcoverfrompolygons",
        IMAGE=image,
        POLYGONS=polygons_file,
        FIELD="class_id",
        REFERENCE=polygons_file,
        REFERENCE_FIELD="class_id",
        PATCH_SIZE=5,
        EPOCHS=3,
        **{
            "map:OUTPUT": str(tmp_path / "map.tif"),
            "train:OUTPUT": str(tmp_path / "model.safetensors"),
            "assess:OUTPUT": str(tmp_path / "accuracy.html"),
        },
    )
    samples, patches, train, classify, assess = played.jobs()
    assert outputs["map:OUTPUT"] == str(tmp_path / "map.tif")
    assert outputs["CHILD_RESULTS"]["assess"]["KAPPA"] == 0.97
    assert samples["vector"]["path"] == polygons_file and samples["count"] == 1000
    # Colours travel from step to step through a memory layer that is loaded nowhere.
    assert patches["legend"]["layer_classes"] == CLASSES
    assert (patches["patch_size"], patches["edge"]) == (5, "reflect")
    assert train["training"] == patches["output"] and train["epochs"] == 3
    assert classify["model"] == train["output"] == str(tmp_path / "model.safetensors")
    assert assess["map"]["path"] == classify["output"]
    # Each reference polygon is a cluster, so that the report has intervals.
    assert (assess["design"], assess["cluster_field"]) == ("clusters", "")
    assert json.loads((tmp_path / "map.job.json").read_text())["kind"] == "classify"


def test_a_run_by_the_defaults_and_the_name_of_its_map(run, played, polygons_file, image, tmp_path, context):
    target = str(tmp_path / "map.tif")
    run(
        "landcoverfrompolygons",
        IMAGE=image,
        POLYGONS=polygons_file,
        REFERENCE=polygons_file,
        **{
            "map:OUTPUT": QgsProcessingOutputLayerDefinition(target, QgsProject.instance()),
            "train:OUTPUT": str(tmp_path / "model.safetensors"),
            "assess:OUTPUT": str(tmp_path / "accuracy.html"),
        },
    )
    # QGIS itself would call it OUTPUT.
    assert context.layerToLoadOnCompletionDetails(target).name == "Class map (scène 1)"
    # What is not given goes by the workflow's defaults, not by those of its steps.
    samples, patches, _train, _classify, assess = played.jobs()
    assert (samples["field"], patches["patch_size"], assess["field"]) == ("class_id", 7, "class_id")


def test_a_failing_step_ends_the_run(algorithm, context, feedback, played, polygons_file, image, tmp_path):

    played("trainclassifier", {"error": {"kind": "input", "message": "Only one class.", "remedy": "Label another."}})
    values = {
        "IMAGE": image, "POLYGONS": polygons_file, "FIELD": "class_id", "REFERENCE": polygons_file,
        "REFERENCE_FIELD": "class_id", "map:OUTPUT": str(tmp_path / "map.tif"),
        "train:OUTPUT": str(tmp_path / "m.safetensors"), "assess:OUTPUT": str(tmp_path / "a.html"),
    }  # fmt: skip
    with pytest.raises(QgsProcessingException, match="Error encountered while running Train"):
        algorithm("landcoverfrompolygons").run(values, context, feedback, {}, False)
    assert "Only one class. Label another." in feedback.warnings
    assert not (tmp_path / "map.tif").exists()


def test_a_map_is_not_judged_by_what_it_was_learned_from(algorithm, context, polygons_file, image, tmp_path):
    workflow = algorithm("landcoverfrompolygons")
    targets = {
        name: str(tmp_path / "out.html")
        for name in [each.name() for each in workflow.parameterDefinitions() if each.isDestination()]
    }
    fields = {"FIELD": "class_id", "REFERENCE_FIELD": "class_id"}

    def check(polygons, reference):
        values = {"IMAGE": image, "POLYGONS": polygons, "REFERENCE": reference, **fields, **targets}
        return workflow.checkParameterValues(values, context)

    accepted, message = check(polygons_file, polygons_file)
    assert not accepted and message.startswith("REFERENCE is 'labels', which POLYGONS is too: ")
    layer = QgsVectorLayer(polygons_file, "my polygons", "ogr")
    context.temporaryLayerStore().addMapLayer(layer)
    assert not check(layer, polygons_file)[0] and not check(layer.id(), layer.id())[0]
    whole, chosen = (QgsProcessingFeatureSourceDefinition(layer.id(), selected) for selected in (False, True))
    assert not check(whole, layer.id())[0] and not check(chosen, chosen)[0]
    # Other features of one layer are no reason to refuse.
    assert check(whole, chosen) == (True, "")
    other = layer.clone()
    other.setSubsetString('"class_id" = 1')
    context.temporaryLayerStore().addMapLayer(other)
    assert check(layer.id(), other.id()) == (True, "")


def test_its_dialog_offers_other_polygons_as_reference(algorithm, monkeypatch, qgis_app, tmp_path):
    workflow, project, chosen = algorithm("landcoverfrompolygons"), QgsProject.instance(), []
    monkeypatch.setattr(utils, "iface", SimpleNamespace(activeLayer=lambda: chosen[-1] if chosen else None))

    def offered():
        copy = workflow.create()  # its parameters die with it
        reference = copy.parameterDefinition("REFERENCE")
        # A script that names no reference gets none.
        assert reference.defaultValue() is None
        return reference.defaultValueForGui()

    first, second = (
        QgsVectorLayer(save(memory_polygons(), tmp_path / f"{name}.gpkg"), name, "ogr") for name in ("a", "b")
    )
    points = QgsVectorLayer("Point?crs=EPSG:4326", "points", "memory")
    try:
        project.addMapLayers([first, points])
        assert offered() is None  # no other polygons
        project.addMapLayers([second])
        assert offered() == second.id()  # QGIS offers the first one for training
        for active, other in ((second, first.id()), (first, second.id()), (points, None)):
            chosen.append(active)
            assert offered() == other
    finally:
        project.removeAllMapLayers()
