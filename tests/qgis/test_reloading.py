"""Layers of the project that show an output which is written again."""

import os
import threading

import numpy as np
import pytest
from deepscape.algorithms import reloading, waiting
from deepscape.tests.qgis.layers import CLASSES, load_as_qgis_does, memory_polygons, save
from osgeo import gdal, osr
from qgis.core import (
    QgsColorRampShader,
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


def test_edits_are_saved_where_they_are_seen(project, tmp_path):
    path = save(memory_polygons((1, 7)), tmp_path / "samples.gpkg")
    layer = QgsVectorLayer(path, "samples", "ogr")
    project.addMapLayer(layer)
    assert layer.startEditing() and layer.changeAttributeValue(1, 1, 5)
    os.replace(save(memory_polygons((3, 4)), tmp_path / "new.gpkg"), path)
    reloading.reload_layers([path], project)
    assert [feature["class_id"] for feature in layer.getFeatures()] == [5, 4]
    assert layer.commitChanges()
    assert [feature["class_id"] for feature in QgsVectorLayer(path, "by hand", "ogr").getFeatures()] == [5, 4]


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
