"""Legends of class rasters: what GDAL and QGIS read back."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from deepscape.engine.legends import aux_path, colour_table, qml_path, read_map_legend, write_sidecars
from deepscape.engine.rasters import Grid
from deepscape.engine.rasterwriting import create_raster
from deepscape.tasks.classtable import ClassEntry

SYSTEM_PYTHON = "/usr/bin/python3"
CLASSES = (
    ClassEntry(0, "Eau & forêt", "#7fbcfc"),
    ClassEntry(4, "Bâti <haut>", "#ff0004"),
    ClassEntry(255, "水田", "#106b00"),
)


def system_python(code, *arguments):
    """Run code in the system's Python, which has GDAL's own bindings and QGIS; its last line is JSON."""
    environment = {"PATH": os.environ["PATH"], "QT_QPA_PLATFORM": "offscreen", "HOME": os.environ.get("HOME", "/")}
    found = subprocess.run(
        [SYSTEM_PYTHON, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(found.stdout.strip().splitlines()[-1])


def has(module):
    if not Path(SYSTEM_PYTHON).exists():
        return False
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True).returncode == 0


needs_gdal = pytest.mark.skipif(not has("osgeo"), reason="the system's Python has no GDAL bindings")
needs_qgis = pytest.mark.skipif(not has("qgis"), reason="the system's Python has no QGIS")


def class_raster(folder, classes=CLASSES, dtype="uint8", nodata=7):
    path = str(folder / "carte.tif")
    values = np.array([[entry.value for entry in classes] + [nodata]], dtype)
    with create_raster(
        path, Grid(len(classes) + 1, 1, Affine(10, 0, 0, 0, -10, 0), None), count=1, dtype=dtype, nodata=nodata
    ) as dataset:
        colours = colour_table(classes, dtype)
        if colours is not None:
            dataset.write_colormap(1, colours)
        dataset.write(values, 1)
    write_sidecars(path, classes, {entry.value: 1 for entry in classes})
    return path


@needs_gdal
def test_gdal_reads_colours_names_and_attribute_table(tmp_path):
    code = """
import json, sys
from osgeo import gdal
dataset = gdal.Open(sys.argv[1])  # kept: a band without its dataset crashes
band = dataset.GetRasterBand(1)
table = band.GetDefaultRAT()
usage = {table.GetUsageOfCol(i): i for i in range(table.GetColumnCount())}
rows = [
    [table.GetValueAsInt(r, usage[gdal.GFU_MinMax]), table.GetValueAsString(r, usage[gdal.GFU_Name]),
     [table.GetValueAsInt(r, usage[u]) for u in (gdal.GFU_Red, gdal.GFU_Green, gdal.GFU_Blue)],
     table.GetValueAsInt(r, usage[gdal.GFU_PixelCount])]
    for r in range(table.GetRowCount())
]
names = band.GetCategoryNames()
colours = band.GetColorTable()
print(json.dumps([rows, [names[0], names[4], names[255], len(names)], list(colours.GetColorEntry(4))[:3]]))
"""
    rows, names, red = system_python(code, class_raster(tmp_path))
    assert rows == [
        [0, "Eau & forêt", [127, 188, 252], 1],
        [4, "Bâti <haut>", [255, 0, 4], 1],
        [255, "水田", [16, 107, 0], 1],
    ]
    assert names == ["Eau & forêt", "Bâti <haut>", "水田", 256]
    assert red == [255, 0, 4]


QGIS_CODE = """
import json, os, sys
from qgis.core import QgsApplication, QgsRasterLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "map")
renderer = layer.renderer()
classes = [[c.value, c.label, c.color.name()] for c in renderer.classes()] if renderer.type() == "paletted" else []
print(json.dumps([renderer.type(), classes]), flush=True)
os._exit(0)  # QGIS's own clean-up may crash when Python drops the layer after the application
"""


@needs_qgis
@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [((0, 4, 255), "uint8", 7), ((1, 300, 70), "uint16", 65535), ((-5, 0, 12), "int16", -32768)],
)
def test_qgis_shows_the_classes_when_the_raster_is_loaded_by_hand(tmp_path, values, dtype, nodata):
    classes = tuple(ClassEntry(v, e.name, e.colour) for v, e in zip(sorted(values), CLASSES))
    kind, shown = system_python(QGIS_CODE, class_raster(tmp_path, classes, dtype, nodata))
    assert kind == "paletted"
    assert shown == [[entry.value, entry.name, entry.colour] for entry in classes]


def test_the_colour_table_is_for_bytes_only():
    assert colour_table(CLASSES, "uint8")[4] == (255, 0, 4, 255)
    assert colour_table(CLASSES, "uint16") is None and colour_table(CLASSES, "int16") is None


def test_what_gdal_wrote_into_the_sidecar_stays(tmp_path):
    path = class_raster(tmp_path)
    Path(aux_path(path)).write_text(
        '<PAMDataset><Metadata><MDI key="a">b</MDI></Metadata><PAMRasterBand band="1">'
        "<CategoryNames><Category>old</Category></CategoryNames>"
        '<Metadata><MDI key="STATISTICS_MEAN">3</MDI></Metadata></PAMRasterBand></PAMDataset>'
    )
    write_sidecars(path, CLASSES, {})
    text = Path(aux_path(path)).read_text(encoding="utf-8")
    assert "STATISTICS_MEAN" in text and ">b<" in text and "old" not in text
    with rasterio.open(path) as dataset:
        assert dataset.tags()["a"] == "b" and dataset.tags(1)["STATISTICS_MEAN"] == "3"


def test_classes_above_255_have_no_category_names(tmp_path):
    path = class_raster(tmp_path, (ClassEntry(1000, "a", "#000000"),), "uint16", 0)
    text = Path(aux_path(path)).read_text(encoding="utf-8")
    assert "CategoryNames" not in text and "<F>1000</F>" in text


def test_the_legend_is_read_from_whatever_is_there(tmp_path):
    path = class_raster(tmp_path)
    assert read_map_legend(path) == CLASSES
    Path(qml_path(path)).unlink()
    assert read_map_legend(path) == CLASSES
    text = Path(aux_path(path)).read_text(encoding="utf-8")
    table = text[text.index("<GDALRasterAttributeTable") : text.index("</GDALRasterAttributeTable>") + 27]
    Path(aux_path(path)).write_text(text.replace(table, ""), encoding="utf-8")
    assert read_map_legend(path) == CLASSES
    Path(aux_path(path)).unlink()
    assert read_map_legend(path) == ()
    Path(qml_path(path)).write_text("<qgis><pipe><rasterrenderer type='singlebandgray'/></pipe></qgis>")
    assert read_map_legend(path) == ()


def test_sidecars_with_entities_or_damage_are_left_alone(tmp_path):
    path = class_raster(tmp_path)
    Path(qml_path(path)).unlink()
    for text in ("<!DOCTYPE a [<!ENTITY b 'c'>]><PAMDataset/>", "<PAMDataset", ""):
        Path(aux_path(path)).write_text(text)
        assert read_map_legend(path) == ()
