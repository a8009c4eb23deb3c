"""Layers of the project that show an output which is written again."""

import os
import threading

import numpy as np
import pytest
from deepscape.algorithms import reloading, waiting
from deepscape.tests.qgis.layers import CLASSES, load_as_qgis_does, memory_polygons, save
from osgeo import gdal, osr
from qgis.core import (
    Qgis,
    QgsApplication,
    QgsColorRampShader,
    QgsCoordinateReferenceSystem,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsRasterShader,
    QgsSingleBandPseudoColorRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import QApplication


def write(path, highest, width=4, west=0.0, epsg=32721, bands=1):
    """Put a new raster of values from 0 to ``highest`` in the place of an older one, as the engine does."""
    part = f"{path}.part"
    raster = gdal.GetDriverByName("GTiff").Create(part, width, 3, bands, gdal.GDT_Float32)
    raster.SetGeoTransform((west, 1, 0, 3, 0, -1))
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(epsg)
    raster.SetProjection(crs.ExportToWkt())
    for band in range(1, bands + 1):
        raster.GetRasterBand(band).WriteArray(np.linspace(0, highest, 3 * width).reshape(3, width))
    del raster  # closes the file
    if os.path.exists(f"{path}.aux.xml"):
        os.remove(f"{path}.aux.xml")
    os.replace(part, path)
    return str(path)


def last_value(layer):
    provider = layer.dataProvider()
    return provider.block(1, provider.extent(), provider.xSize(), provider.ySize()).value(2, provider.xSize() - 1)


def opened(path, name="mine"):
    """Add a layer of a file to the project, its values read once."""
    layer = QgsRasterLayer(str(path), name)
    QgsProject.instance().addMapLayer(layer)
    last_value(layer)
    return layer


@pytest.fixture
def project(context):
    return QgsProject.instance()


def test_a_map_that_is_open_shows_the_new_one(run, play, image, tmp_path, project, algorithm, feedback):
    """Processing hands over the layer of the project, under the name of the new map."""
    model, made = tmp_path / "m.safetensors", tmp_path / "made.tif"
    model.write_text("x")
    targets = {name: tmp_path / f"{name}.tif" for name in ("OUTPUT", "CONFIDENCE")}
    copies = [{"copy": [str(made), f"${name.lower()}"]} for name in targets]

    def classify(classes):
        context = QgsProcessingContext()
        context.setProject(project)
        play("classify", *copies, {"result": {"classes": classes}})
        sinks = {name: QgsProcessingOutputLayerDefinition(str(path), project) for name, path in targets.items()}
        values = {"INPUT": image, "MODEL": str(model), **sinks}
        assert algorithm("classify").run(values, context, feedback, {}, False)[1]
        loaded = load_as_qgis_does(context, feedback)
        return loaded["Class map (scène 1)"], loaded["Confidence (scène 1)"]

    write(made, 10)
    first, sure = classify(CLASSES[:1])
    others = [opened(path) for path in targets.values()]
    assert [last_value(layer) for layer in (first, sure, *others)] == [10, 10, 10, 10]
    for path in targets.values():
        path.unlink()  # the engine writes a new file in its place, too
    write(made, 99, width=6, west=50, epsg=32722)
    again, sure_again = classify(CLASSES)
    assert (again.id(), sure_again.id()) == (first.id(), sure.id()) and len(project.mapLayers()) == 4
    for layer in (again, sure_again, *others):
        assert (last_value(layer), layer.width(), layer.extent().xMinimum()) == (99, 6, 50)
        assert layer.crs().authid() == "EPSG:32722"
    assert [entry.label for entry in again.renderer().classes()] == ["Water", "Forest"]
    # The style of a layer that the user made is hers.
    assert [layer.name() for layer in others] == ["mine", "mine"]
    assert isinstance(others[0].renderer(), QgsPalettedRasterRenderer) and len(others[0].renderer().classes()) == 1


def test_only_layers_of_what_was_written_are_reloaded(project, tmp_path):
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / "a.tif", tmp_path / "folder" / "b.tif", tmp_path / "folder.tif"]
    layers = [opened(write(path, 10)) for path in paths]
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for path in paths:
        write(path, 20)
    reloading.reload_layers([str(tmp_path / "link")], project)
    assert [last_value(layer) for layer in layers] == [10, 20, 10]
    reloading.reload_layers([str(tmp_path / "a.tif")], None)
    reloading.reload_layers([str(tmp_path / "a.tif")], project)
    assert [last_value(layer) for layer in layers] == [20, 20, 10]


def ramp(layer):
    """Show a layer in colours between the limits that QGIS finds."""
    function = QgsColorRampShader(0, 10)
    function.setColorRampItemList([QgsColorRampShader.ColorRampItem(v, QColor("red")) for v in (0.0, 10.0)])
    shader = QgsRasterShader(0, 10)
    shader.setRasterShaderFunction(function)
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1, shader)
    renderer.setClassificationMin(0)
    renderer.setClassificationMax(10)
    layer.setRenderer(renderer)
    return renderer


def test_limits_of_colours_are_those_of_the_new_values(project, tmp_path):
    """GDAL writes the statistics of the old file on closing it, beside the new one."""
    grey, coloured, typed = (opened(write(tmp_path / f"{name}.tif", 10)) for name in ("grey", "coloured", "typed"))
    three = opened(write(tmp_path / "three.tif", 10, bands=3))
    for layer in (grey, three):
        layer.setDefaultContrastEnhancement()
    found = QgsRasterMinMaxOrigin()
    found.setLimits(QgsRasterMinMaxOrigin.Limits.MinMax)
    ramp(typed)
    ramp(coloured).setMinMaxOrigin(found)
    coloured.dataProvider().bandStatistics(1)
    coloured.setOpacity(0.5)
    for layer in (grey, coloured, typed, three):
        write(layer.source(), 500, bands=layer.bandCount())
    reloading.reload_layers([str(tmp_path)], project)
    assert grey.renderer().contrastEnhancement().maximumValue() == 500
    assert three.renderer().redContrastEnhancement().maximumValue() > 400
    assert coloured.renderer().classificationMax() == 500 and coloured.opacity() == 0.5
    assert typed.renderer().classificationMax() == 10
    for layer in (grey, coloured, three):
        assert layer.dataProvider().bandStatistics(1).maximumValue == 500


def test_files_beside_a_raster_stay_those_of_the_run(project, tmp_path):
    path = tmp_path / "map.tif"
    layer = opened(write(path, 10))
    layer.setDefaultContrastEnhancement()
    write(path, 500)
    legend = '<PAMDataset>\n  <Metadata>\n    <MDI key="LEGEND">new</MDI>\n  </Metadata>\n</PAMDataset>\n'
    aside = tmp_path / "map.tif.aux.xml"
    aside.write_text(legend)
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, []))
    reloading.reload_layers([str(path)], project)
    assert aside.read_text() == legend
    assert layer.dataProvider().bandStatistics(1).maximumValue == 500


@pytest.mark.parametrize("suffix", [".gpkg", ".shp"])
def test_samples_that_are_open_are_the_new_ones(run, play, tmp_path, image, project, suffix):
    def sample(values):
        engine = save(memory_polygons(values), tmp_path / f"engine{len(values)}.gpkg")
        play("selectsamples", {"copy": [engine, "$output"]}, {"result": {"classes": CLASSES}})
        run("selectsamples", INPUT=image, OUTPUT=str(tmp_path / f"samples{suffix}"))

    def told(layer):
        return layer.featureCount(), [feature["class_id"] for feature in layer.getFeatures()], layer.extent().width()

    sample((1, 7))
    source = str(tmp_path / f"samples{suffix}")
    layers = [QgsVectorLayer(source, name, "ogr") for name in ("samples", "also")]
    project.addMapLayers(layers)
    assert [told(layer) for layer in layers] == [(2, [1, 7], 1.5)] * 2
    sample((7, 7, 1))
    assert [told(layer) for layer in layers] == [(3, [7, 7, 1], 2.5)] * 2


@pytest.fixture
def logged(qgis_app):
    """The (message, level) pairs of QGIS's log under the plugin's name."""
    found = []

    def keep(text, tag, level):
        if tag == "Deepscape":
            found.append((text, level))

    QgsApplication.messageLog().messageReceived.connect(keep)
    yield found
    QgsApplication.messageLog().messageReceived.disconnect(keep)


@pytest.fixture
def edited(project, tmp_path):
    """A layer of the project with an unsaved edit of a file."""
    layer = QgsVectorLayer(save(memory_polygons((1, 7)), tmp_path / "samples.gpkg"), "my samples", "ogr")
    project.addMapLayer(layer)
    assert layer.startEditing() and layer.changeAttributeValue(1, 1, 5)
    return layer


def classes_in(layer):
    return [feature["class_id"] for feature in layer.getFeatures()]


def saved_classes(path):
    return classes_in(QgsVectorLayer(str(path), "by hand", "ogr"))


def renew(path):
    """Put other features in the place of a file, as a run does."""
    os.replace(save(memory_polygons((3, 4)), path.with_name("new.gpkg")), path)


@pytest.mark.parametrize("from_model", [False, True])
def test_unsaved_edits_are_not_overwritten(
    algorithm, context, feedback, play, image, project, edited, tmp_path, from_model
):
    """Also from a thread of QGIS's for models, which has to ask the main one."""
    engine, path = save(memory_polygons((3, 4)), tmp_path / "engine.gpkg"), tmp_path / "samples.gpkg"
    play("selectsamples", {"copy": [engine, "$output"]}, {"result": {"classes": CLASSES}})
    ends = []

    def start():
        values = {"INPUT": image, "OUTPUT": str(path)}
        ends.append(algorithm("selectsamples").run(values, context, feedback, {}, False)[1])

    def start_and_wait():
        if not from_model:
            start()
            return
        thread = threading.Thread(target=start)
        thread.start()
        while thread.is_alive():
            QApplication.processEvents()

    start_and_wait()
    assert ends == [False] and play.jobs() == [] and saved_classes(path) == [1, 7]
    assert feedback.warnings == [
        f"'{path}' would be written anew, but the layer 'my samples' shows it with unsaved edits. "
        "Save or discard the edits first, or choose another output."
    ]
    assert edited.commitChanges(False)  # still open for edits
    start_and_wait()
    QApplication.processEvents()
    assert ends == [False, True] and saved_classes(path) == classes_in(edited) == [3, 4]


def test_only_edits_of_what_will_be_written_are_found(project, edited, tmp_path):
    for paths in ([], [str(tmp_path / "other.gpkg")], [str(tmp_path / "samples")]):
        assert reloading.edited_layer(paths, project) is None
    for path in (tmp_path / "samples.gpkg", tmp_path):
        assert reloading.edited_layer([str(path)], project) == ("my samples", str(tmp_path / "samples.gpkg"))
    assert reloading.edited_layer([str(tmp_path)], None) is None
    assert edited.rollBack() and edited.startEditing()
    assert reloading.edited_layer([str(tmp_path)], project) is None


def test_edits_begun_during_a_run_go_to_no_other_features(project, edited, tmp_path, logged):
    path = tmp_path / "samples.gpkg"
    renew(path)
    reloading.reload_layers([str(path)], project)
    assert classes_in(edited) == [3, 4] and not edited.isModified()
    text = f"The unsaved edits of the layer 'my samples' were discarded, for '{path}' was written anew meanwhile."
    assert logged == [(text, Qgis.MessageLevel.Warning)]
    # What is edited from now on is saved where it is seen.
    assert edited.startEditing() and edited.changeAttributeValue(2, 1, 9) and edited.commitChanges()
    assert saved_classes(path) == [3, 9]


def test_what_was_undone_is_not_done_again_to_other_features(project, edited, tmp_path, logged):
    path = tmp_path / "samples.gpkg"
    edited.undoStack().undo()
    assert edited.isEditable() and not edited.isModified()
    renew(path)
    reloading.reload_layers([str(path)], project)
    edited.undoStack().redo()
    assert classes_in(edited) == [3, 4] and edited.isEditable() and logged == []


def test_the_disk_is_asked_for_no_other_layers(project, tmp_path, monkeypatch):
    """One on a share that is out of reach would freeze QGIS."""
    for name in ("a.tif", "far.tif"):
        opened(write(tmp_path / name, 10))
    asked, isfile = [], os.path.isfile

    def ask(path):
        asked.append(os.path.basename(path))
        return isfile(path)

    monkeypatch.setattr(os.path, "isfile", ask)
    reloading.reload_layers([str(tmp_path / "a.tif")], project)
    assert "a.tif" in asked and "far.tif" not in asked
    asked.clear()
    reloading.reload_layers([], project)
    assert asked == []


def test_statistics_that_cannot_be_read_are_left(project, tmp_path, monkeypatch):
    path = tmp_path / "map.tif"
    layer = opened(write(path, 10))
    write(path, 20)
    aside = tmp_path / "map.tif.aux.xml"
    aside.write_text("<PAMDataset/>")

    def refuse(*_):
        raise PermissionError("in use")

    monkeypatch.setattr(reloading, "open", refuse, raising=False)
    reloading.reload_layers([str(path)], project)
    assert last_value(layer) == 20 and aside.exists()


def test_a_crs_of_the_user_stays_where_qgis_gives_that_of_the_project(project, tmp_path):
    class Layer(QgsRasterLayer):
        """A layer of QGIS with the setting that an unknown CRS is the project's."""

        def setDataSource(self, *values):
            super().setDataSource(*values)
            self.setCrs(QgsCoordinateReferenceSystem("EPSG:4326"))

    path = tmp_path / "map.tif"
    raster = gdal.GetDriverByName("GTiff").Create(str(path), 2, 2)
    del raster  # closes the file
    layer = Layer(str(path), "mine")
    project.addMapLayer(layer)
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32721"))
    assert not layer.dataProvider().crs().isValid()
    reloading.reload_layers([str(path)], project)
    assert layer.crs().authid() == "EPSG:32721"


def test_a_run_is_done_though_a_layer_cannot_be_reloaded(run, play, image, tmp_path, project, monkeypatch, logged):
    def fail(*_):
        raise RuntimeError("the layer is gone")

    monkeypatch.setattr(reloading, "reload_layers", fail)
    engine = save(memory_polygons(), tmp_path / "engine.gpkg")
    play("selectsamples", {"copy": [engine, "$output"]}, {"result": {"classes": CLASSES}})
    run("selectsamples", INPUT=image, OUTPUT=str(tmp_path / "samples.gpkg"))
    assert logged == [("RuntimeError: the layer is gone", Qgis.MessageLevel.Critical)]


def test_another_thread_leaves_it_to_the_main_thread(qgis_app):
    """Where QGIS runs the steps of a model in a thread of their own."""
    threads = []
    ask = threading.Thread(target=lambda: waiting.soon_in_main_thread(lambda: threads.append(waiting.in_main_thread())))
    ask.start()
    ask.join()
    assert threads == []
    QApplication.processEvents()
    assert threads == [True]
    QApplication.processEvents()
    assert threads == [True] and not waiting._ERRANDS


def test_what_fails_in_the_main_thread_is_told_in_the_log(qgis_app, logged):
    waiting.soon_in_main_thread(lambda: [][0])
    QApplication.processEvents()
    assert logged == [("IndexError: list index out of range", Qgis.MessageLevel.Critical)] and not waiting._ERRANDS


def test_a_main_thread_that_waits_does_not_answer(qgis_app, monkeypatch):
    monkeypatch.setattr(waiting, "ANSWER_S", 0.05)
    answers = [waiting.ask_main_thread(waiting.in_main_thread)]
    asking = threading.Thread(target=lambda: answers.append(waiting.ask_main_thread(waiting.in_main_thread)))
    asking.start()
    asking.join()
    assert answers == [True, None]
    QApplication.processEvents()
    assert not waiting._ERRANDS
