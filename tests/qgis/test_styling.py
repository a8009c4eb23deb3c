"""Legends on the canvas, beside the files, and from step to step of a model."""

from pathlib import Path

import pytest
from deepscape.tests.qgis.layers import CLASSES, load_as_qgis_does, save
from osgeo import gdal
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFeature,
    QgsGeometry,
    QgsLayerTreeModel,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.gui import QgsLayerTreeView
from qgis.PyQt.QtWidgets import QApplication

COLOURS = {1: ("Water", "#7fbcfc"), 7: ("Forest", "#106b00")}


def categories(layer):
    renderer = layer.renderer()
    assert isinstance(renderer, QgsCategorizedSymbolRenderer)
    return renderer.classAttribute(), {
        _number(category.value()): (category.label(), category.symbol().color().name())
        for category in renderer.categories()
    }


def _number(value):
    """Styles in files hold numbers as text, which QGIS matches all the same."""
    return int(value) if str(value).isdigit() else value


def palette(layer):
    assert isinstance(layer.renderer(), QgsPalettedRasterRenderer)
    return {item.value: (item.label, item.color.name()) for item in layer.renderer().classes()}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("x")
    return str(path)


@pytest.fixture
def sampling(play, points_file):
    result = {"sample_count": 2, "counts": {"1": 1, "7": 1}, "classes": CLASSES}
    play("selectsamples", {"copy": [points_file, "$output"]}, {"result": result})


@pytest.fixture
def panel(qgis_app):
    """The layers of the project as QGIS's window shows them."""
    view = QgsLayerTreeView()
    model = QgsLayerTreeModel(QgsProject.instance().layerTreeRoot(), view)
    view.setModel(model)
    view.show()
    yield view
    view.close()


def details(context, name, output):
    return QgsProcessingContext.LayerDetails(name, QgsProject.instance(), output)


def test_points_in_memory_have_their_style_for_the_next_step(run, sampling, image, context):
    outputs = run("selectsamples", INPUT=image, OUTPUT="memory:")
    layer = context.temporaryLayerStore().mapLayer(outputs["OUTPUT"])
    assert layer.featureCount() == 2
    assert [field.name() for field in layer.fields()] == ["class_id", "class_name", "split"]
    assert categories(layer) == ("class_id", COLOURS)


def test_points_in_a_file_have_a_sidecar(run, sampling, image, tmp_path):
    target = tmp_path / "samples ü.gpkg"
    outputs = run("selectsamples", INPUT=image, OUTPUT=str(target))
    assert outputs["OUTPUT"] == str(target) and outputs["SAMPLE_COUNT"] == 2
    assert outputs["COUNTS"] == '{"1": 1, "7": 1}'
    assert categories(QgsVectorLayer(str(target), "by hand", "ogr")) == ("class_id", COLOURS)


def test_points_beside_a_raster_of_the_same_name_leave_its_style(run, sampling, image, tmp_path):
    style = tmp_path / "map.qml"
    (tmp_path / "map.tif").write_bytes(Path(image).read_bytes())
    style.write_text("the raster's")
    outputs = run("selectsamples", INPUT=image, OUTPUT=str(tmp_path / "map.gpkg"))
    assert style.read_text() == "the raster's"
    assert categories(QgsVectorLayer(outputs["OUTPUT"], "by hand", "ogr")) == ("class_id", COLOURS)


def test_points_in_a_shapefile(run, sampling, image, tmp_path):
    outputs = run("selectsamples", INPUT=image, OUTPUT=str(tmp_path / "samples.shp"))
    assert categories(QgsVectorLayer(outputs["OUTPUT"], "by hand", "ogr")) == ("class_id", COLOURS)


def test_style_outlives_the_clone_that_ran(algorithm, sampling, image, tmp_path, context, feedback):
    from qgis.core import QgsProcessingOutputLayerDefinition

    sink = QgsProcessingOutputLayerDefinition(str(tmp_path / "samples.gpkg"), QgsProject.instance())
    clone = algorithm("selectsamples").create()
    _, ok = clone.run({"INPUT": image, "OUTPUT": sink}, context, feedback, {}, False)
    assert ok
    (tmp_path / "samples.qml").unlink()
    del clone
    (layer,) = load_as_qgis_does(context, feedback).values()
    assert layer.name() == "Samples (scène 1)"
    assert categories(layer) == ("class_id", COLOURS)


def test_class_map_and_confidence(run, play, model, image, tmp_path, context, feedback):
    from qgis.core import QgsProcessingOutputLayerDefinition

    play(
        "classify",
        {"copy": [image, "$output"]},
        {"copy": [image, "$confidence"]},
        {"copy": [image, "$probabilities"]},
        {"result": {"classes": CLASSES, "nodata_value": 255}},
    )
    target, confidence = tmp_path / "map.tif", tmp_path / "sure.tif"
    run(
        "classify",
        INPUT=image,
        MODEL=model,
        OUTPUT=QgsProcessingOutputLayerDefinition(str(target), QgsProject.instance()),
        CONFIDENCE=QgsProcessingOutputLayerDefinition(str(confidence), QgsProject.instance()),
        PROBABILITIES=QgsProcessingOutputLayerDefinition(str(tmp_path / "each.tif"), QgsProject.instance()),
    )
    layers = load_as_qgis_does(context, feedback)
    assert sorted(layers) == ["Class map (scène 1)", "Confidence (scène 1)", "Probabilities (scène 1)"]
    assert palette(layers["Class map (scène 1)"]) == COLOURS
    tree = QgsProject.instance().layerTreeRoot()
    checked = {node.name(): node.itemVisibilityChecked() for node in tree.findLayers()}
    assert checked == {
        "Class map (scène 1)": True,
        "Confidence (scène 1)": False,
        "Probabilities (scène 1)": False,
    }
    shown = layers["Confidence (scène 1)"].renderer()
    assert isinstance(shown, QgsSingleBandPseudoColorRenderer)
    assert (shown.classificationMin(), shown.classificationMax()) == (0, 1)
    assert palette(QgsRasterLayer(str(target), "by hand")) == COLOURS
    assert isinstance(QgsRasterLayer(str(confidence), "by hand").renderer(), QgsSingleBandPseudoColorRenderer)


def test_the_legend_is_open_above_a_layer_that_is_there(run, play, model, image, tmp_path, context, feedback, panel):
    """The panel of QGIS 3.22 shows that of the first new layer closed, though the layer's node is expanded."""
    from qgis.core import QgsProcessingOutputLayerDefinition

    project = QgsProject.instance()
    copies = [{"copy": [image, f"${name}"]} for name in ("output", "margin")]
    play("classify", *copies, {"result": {"classes": CLASSES}})
    project.addMapLayer(QgsRasterLayer(image, "scene"))
    QApplication.processEvents()
    # Layers are loaded in the order of their paths.
    paths = {"OUTPUT": tmp_path / "1.tif", "MARGIN": tmp_path / "2.tif"}
    outputs = {name: QgsProcessingOutputLayerDefinition(str(path), project) for name, path in paths.items()}
    run("classify", INPUT=image, MODEL=model, **outputs)
    load_as_qgis_does(context, feedback)
    QApplication.processEvents()
    nodes = project.layerTreeRoot().findLayers()
    assert {node.name(): panel.isExpanded(panel.node2index(node)) for node in nodes} == {
        "Class map (scene)": True,
        "Margin (scene)": False,
        "scene": True,
    }


def test_margin_is_light_and_entropy_dark_where_the_model_is_sure(run, play, model, image, tmp_path):
    play("classify", *({"copy": [image, f"${name}"]} for name in ("output", "entropy", "margin")))
    paths = {name: str(tmp_path / f"{name}.tif") for name in ("OUTPUT", "ENTROPY", "MARGIN")}
    run("classify", INPUT=image, MODEL=model, **paths)
    for name, colour in (("MARGIN", "#ffea46"), ("ENTROPY", "#00204d")):
        layer = QgsRasterLayer(paths[name], "by hand")  # its renderer dies with it
        last = layer.renderer().shader().rasterShaderFunction().colorRampItemList()[-1]
        assert (last.value, last.color.name()) == (1.0, colour)


def test_of_probabilities_the_band_of_the_most_frequent_class_is_shown(run, play, model, image, tmp_path):
    areas = {str(value): {"name": "", "pixels": count} for value, count in ((3, 5), (5, 90), (9, 0))}
    each = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "three.tif"), 4, 3, 3)
    del each  # closes the file
    play(
        "classify",
        {"copy": [image, "$output"]},
        {"copy": [str(tmp_path / "three.tif"), "$probabilities"]},
        {"result": {"class_areas": areas}},
    )
    target = tmp_path / "each.tif"
    run("classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"), PROBABILITIES=str(target))
    layer = QgsRasterLayer(str(target), "by hand")
    shown = layer.renderer()
    assert isinstance(shown, QgsSingleBandPseudoColorRenderer) and shown.band() == 2
    assert (shown.classificationMin(), shown.classificationMax()) == (0, 1)


@pytest.fixture
def complaints():
    """What GDAL complains of, in place of printing it."""
    found = []
    gdal.PushErrorHandler(lambda _kind, _number, text: found.append(text))
    yield found
    gdal.PopErrorHandler()


def test_a_class_that_occurs_nowhere_makes_gdal_complain_of_nothing(
    run, play, model, image, tmp_path, context, feedback, complaints
):
    from deepscape.algorithms import styling
    from qgis.core import QgsProcessingOutputLayerDefinition

    # Probabilities in steps of 0.004, of classes that the part of a scene lacks: bands of one value.
    written = str(tmp_path / "three.tif")
    each = gdal.GetDriverByName("GTiff").Create(written, 4, 3, 3)
    each.SetGeoTransform((0, 1, 0, 3, 0, -1))
    for number in (1, 2, 3):
        each.GetRasterBand(number).SetScale(0.004)
        each.GetRasterBand(number).Fill(250 if number == 2 else 0)
    del each  # closes the file
    plain = QgsRasterLayer(written, "without a style")
    assert any("dfMax should be" in text for text in complaints)
    styling.confidence(plain)
    plain.saveNamedStyle(str(tmp_path / "ramp.qml"))
    complaints.clear()
    target = tmp_path / "each.tif"
    play(
        "classify",
        {"copy": [image, "$output"]},
        {"copy": [written, "$probabilities"]},
        {"copy": [str(tmp_path / "ramp.qml"), str(target.with_suffix(".qml"))]},
        {"result": {"classes": CLASSES}},
    )
    run(
        "classify", INPUT=image, MODEL=model, OUTPUT=str(tmp_path / "map.tif"),
        PROBABILITIES=QgsProcessingOutputLayerDefinition(str(target), QgsProject.instance()),
    )  # fmt: skip
    layer = load_as_qgis_does(context, feedback)["Probabilities (scène 1)"]
    assert isinstance(layer.renderer(), QgsSingleBandPseudoColorRenderer) and complaints == []


def test_a_name_given_by_a_model_stays(run, play, model, image, tmp_path, context, feedback):
    target = str(tmp_path / "map.tif")
    context.addLayerToLoadOnCompletion(target, details(context, "Land-cover map", "map:OUTPUT"))
    play("classify", {"copy": [image, "$output"]}, {"result": {"classes": CLASSES}})
    run("classify", INPUT=image, MODEL=model, OUTPUT=target)
    layers = load_as_qgis_does(context, feedback)
    assert palette(layers["Land-cover map"]) == COLOURS


def test_split_samples_keep_the_class_style_of_their_input(run, play, points_file, sampling, image, context):
    samples = run("selectsamples", INPUT=image, OUTPUT="memory:")["OUTPUT"]
    play("splitsamples", {"copy": [points_file, "$output"]})
    outputs = run("splitsamples", INPUT=samples, FIELD="class_id", OUTPUT="memory:")
    layer = context.temporaryLayerStore().mapLayer(outputs["OUTPUT"])
    assert categories(layer) == ("class_id", COLOURS)


def test_split_samples_without_a_style_show_their_part(run, play, points_file, context):
    play("splitsamples", {"copy": [points_file, "$output"]})
    outputs = run("splitsamples", INPUT=points_file, FIELD="class_id", OUTPUT="memory:")
    attribute, shown = categories(context.temporaryLayerStore().mapLayer(outputs["OUTPUT"]))
    assert attribute == "split"
    assert {value: label for value, (label, _) in shown.items()} == {
        "train": "Training", "validation": "Validation", "test": "Test", "": "Not split",
    }  # fmt: skip


def test_the_legend_of_samples_reaches_the_patches(run, play, points_file, sampling, image, tmp_path, context):
    samples = run("selectsamples", INPUT=image, OUTPUT="memory:")["OUTPUT"]
    play("extractpatches", {"mkdir": "$output"}, {"copy": [points_file, "$footprints"]}, {"result": {"accepted": 2}})
    outputs = run(
        "extractpatches", INPUT=image, SAMPLES=samples, FIELD="class_id", OUTPUT=str(tmp_path / "patches"),
        FOOTPRINTS="memory:",
    )  # fmt: skip
    assert play.jobs()[-1]["legend"]["layer_classes"] == CLASSES
    assert outputs["ACCEPTED"] == 2
    attribute, _ = categories(context.temporaryLayerStore().mapLayer(outputs["FOOTPRINTS"]))
    assert attribute == "split"


def test_footprints_are_optional(run, play, points_file, image, tmp_path):
    play("extractpatches", {"mkdir": "$output"}, {"result": {"accepted": 2}})
    outputs = run(
        "extractpatches", INPUT=image, SAMPLES=points_file, FIELD="class_id", OUTPUT=str(tmp_path / "patches")
    )
    assert play.jobs()[-1]["footprints"] == ""
    assert "FOOTPRINTS" not in outputs
    assert (tmp_path / "patches.job.json").exists()


def test_the_map_s_classes_reach_the_assessment(run, play, points_file, image, tmp_path, context):
    from deepscape.tasks.classtable import ClassEntry, raster_qml

    (tmp_path / "scène 1.qml").write_text(raster_qml([ClassEntry(**entry) for entry in CLASSES]), encoding="utf-8")
    play("assess", {"write": ["$output", "<html>"]})
    run("assess", INPUT=image, REFERENCE_SAMPLES=points_file, FIELD="class_id", OUTPUT=str(tmp_path / "a.html"))
    assert play.jobs()[-1]["legend"]["layer_classes"] == CLASSES


def test_points_for_an_assessment_are_blind(run, play, image, tmp_path, context):
    layer = QgsVectorLayer(
        "Point?crs=EPSG:4326&field=stratum:integer&field=weight:double&field=reference:integer", "points", "memory"
    )
    feature = QgsFeature(layer.fields())
    feature.setAttributes([2, 12.5, None])
    feature.setGeometry(QgsGeometry.fromWkt("POINT(0.5 0.5)"))
    layer.dataProvider().addFeature(feature)
    points = save(layer, tmp_path / "engine_points.gpkg")
    result = {"result": {"classes": CLASSES, "strata": {"7": {"stratum": 2}}, "standard_error": 0.25}}
    play("assessmentsample", {"copy": [points, "$output"]}, result)
    outputs = run("assessmentsample", INPUT=image, CLASS_ACCURACIES="7: 0.6; 1:0.95", OUTPUT="memory:")
    job = play.jobs()[-1]
    assert (job["class_accuracies"], job["total"], job["key"]) == ({"7": 0.6, "1": 0.95}, None, "")
    assert (outputs["STANDARD_ERROR"], outputs["STRATA"]) == (0.25, '{"7": {"stratum": 2}}')
    shown = context.temporaryLayerStore().mapLayer(outputs["OUTPUT"])
    assert isinstance(shown.renderer(), QgsSingleSymbolRenderer)
    kinds = {field.name(): shown.editorWidgetSetup(index) for index, field in enumerate(shown.fields())}
    assert kinds["stratum"].type() == kinds["weight"].type() == "Hidden"
    assert kinds["reference"].config() == {"map": [{"1 Water": 1}, {"7 Forest": 7}]}
    with pytest.raises(QgsProcessingException, match="CLASS_ACCURACIES holds 'x:1', which is not of the form"):
        run("assessmentsample", INPUT=image, CLASS_ACCURACIES="x:1", OUTPUT="memory:")
