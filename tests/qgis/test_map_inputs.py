"""What *Classify an image* makes of extents, further models and images without a driver."""

import json
import os
import shutil
import struct

import pytest
from deepscape.algorithms import rasterexport
from deepscape.tasks.errors import BadInput, JobCancelled
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)
from qgis.gui import QgsExtentWidget, QgsMapCanvas


@pytest.fixture
def classify(run, play, image, tmp_path):
    """Returns a function that runs classify with some parameters and gives the job that reached the engine."""
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    play("classify", {"copy": [image, "$output"]})

    def start(**parameters):
        given = {"INPUT": image, "MODEL": str(model), "OUTPUT": str(tmp_path / "o.tif"), **parameters}
        run("classify", **given)
        return play.jobs()[-1]

    return start


def test_orientations_and_further_models(classify, tmp_path):
    job = classify()
    assert (job["tta"], job["more_models"]) == ("none", [])
    more = [str(tmp_path / name) for name in ("b.safetensors", "a.safetensors")]
    for path in more:
        with open(path, "w") as file:
            file.write("x")
    job = classify(TTA="full", MODELS=more)
    assert (job["tta"], job["more_models"]) == ("full", more)


def in_crs(job):
    extent = job["extent"]
    crs = QgsCoordinateReferenceSystem.fromWkt(extent["crs"])
    return [round(extent[key], 6) for key in ("xmin", "ymin", "xmax", "ymax")], crs.authid()


@pytest.mark.parametrize(
    "extent",
    [
        "-57.5,-57.25,-15.5,-15.25 [EPSG:4326]",
        QgsReferencedRectangle(
            QgsRectangle(-57.5, -15.5, -57.25, -15.25), QgsCoordinateReferenceSystem("EPSG:4326")
        ),
    ],
)  # fmt: skip
def test_an_extent_keeps_its_own_crs_whatever_the_project_has(classify, extent, context):
    QgsProject.instance().setCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    assert in_crs(classify(EXTENT=extent)) == ([-57.5, -15.5, -57.25, -15.25], "EPSG:4326")


def test_the_visible_canvas_comes_with_the_crs_of_the_canvas(classify, context):
    project = QgsProject.instance()
    project.setCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    canvas = QgsMapCanvas()
    canvas.setDestinationCrs(project.crs())
    canvas.resize(200, 100)
    canvas.setExtent(QgsRectangle(1000, 2000, 1200, 2100))
    field = QgsExtentWidget()
    shown = canvas.extent()
    field.setCurrentExtent(shown, canvas.mapSettings().destinationCrs())
    field.setOutputExtentFromCurrent()
    box, crs = in_crs(classify(EXTENT=QgsReferencedRectangle(field.outputExtent(), field.outputCrs())))
    assert crs == "EPSG:3857"
    expected = [shown.xMinimum(), shown.yMinimum(), shown.xMaximum(), shown.yMaximum()]
    assert box == pytest.approx(expected, abs=1e-3)


# --- what the engine cannot open -------------------------------------------------------------------------------------


def fits(path, values):
    """Write a FITS file by hand; rasterio's wheels have no driver for it, QGIS's GDAL has."""
    rows = [list(row) for row in values]
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2",
             f"NAXIS1  = {len(rows[0]):>20}", f"NAXIS2  = {len(rows):>20}", "END"]  # fmt: skip
    header = "".join(card.ljust(80) for card in cards).ljust(2880)
    data = b"".join(struct.pack(f">{len(row)}h", *row) for row in reversed(rows))
    path.write_bytes(header.encode() + data.ljust(2880, b"\0"))
    return str(path)


def test_a_raster_without_a_driver_in_the_engine_is_copied_and_kept(classify, tmp_path, feedback):
    given = fits(tmp_path / "a b.fits", [[1, 2, 3], [4, 5, -6]])
    job = classify(INPUT=given)
    assert job["source"]["label"] == "a b" and job["source"]["path"].endswith("input1.tif")
    assert any("as a copy" in text for text in feedback.infos)
    kept = tmp_path / "o.input1.tif"
    copy = gdal.Open(str(kept))
    assert copy.GetDriver().ShortName == "GTiff" and copy.GetRasterBand(1).DataType == gdal.GDT_Int16
    assert struct.unpack("6h", copy.ReadRaster()) == (1, 2, 3, 4, 5, -6)
    saved = json.loads((tmp_path / "o.job.json").read_text())
    assert "o.input1.tif" in json.dumps(saved)
    assert not os.path.exists(job["source"]["path"])
    # A copy of this run is no other run's input; the job file's is.
    assert job["resume"] is False and saved["job"]["resume"] is True


def test_a_layer_opened_with_driver_options_is_copied_as_it_is_shown(classify, tmp_path, feedback):
    path = tmp_path / "wide.tif"
    made = gdal.GetDriverByName("GTiff").Create(str(path), 8, 4, 1)
    made.GetRasterBand(1).WriteRaster(0, 0, 8, 4, bytes(range(32)))
    made.BuildOverviews("NEAREST", [2])
    del made  # closes the file
    layer = QgsRasterLayer(f"{path}|option:OVERVIEW_LEVEL=0", "halved", "gdal")
    assert layer.isValid() and (layer.width(), layer.height()) == (4, 2)
    QgsProject.instance().addMapLayer(layer)
    job = classify(INPUT=layer)
    assert job["source"]["label"] == "halved" and job["source"]["path"].endswith("input1.tif")
    copy = gdal.Open(str(tmp_path / "o.input1.tif"))
    assert (copy.RasterXSize, copy.RasterYSize) == (4, 2)
    assert set(copy.ReadRaster()) < set(range(32))


def test_a_web_layer_is_refused_with_what_to_do(algorithm, context, feedback, tmp_path):
    layer = QgsRasterLayer("type=xyz&url=http://127.0.0.1:9/{z}/{x}/{y}.png&zmin=0&zmax=5", "tiles", "wms")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    given = {"INPUT": layer, "MODEL": str(model), "OUTPUT": str(tmp_path / "o.tif")}
    _, done = algorithm("classify").run(given, context, feedback, {}, False)
    message = " ".join(feedback.warnings)
    assert not done
    assert "INPUT 'tiles' is no file: it comes from a web service or a database ('wms')." in message
    assert "Export > Save As..." in message


def test_a_raster_in_an_archive_is_left_to_the_engine(classify, zipped):
    for given in (zipped, QgsRasterLayer(zipped, "zipped")):
        job = classify(INPUT=given, STACK=[zipped, given], MASK=zipped)
        assert job["source"]["path"] == zipped and job["source"]["stack"] == [zipped, zipped]
        assert job["mask"]["path"] == zipped
    assert job["source"]["label"] == "zipped" and classify(INPUT=zipped)["source"]["label"] == "scene"
    # As with files, a layer that is open goes before what its file shows.
    QgsProject.instance().addMapLayer(QgsRasterLayer(zipped, "my layer"))
    assert classify(INPUT=zipped)["source"]["label"] == "my layer"


def test_a_temporary_input_is_named_for_its_job_cannot_be_repeated(classify, image, tmp_path, feedback):
    classify()
    assert not [text for text in feedback.infos if "cannot be repeated" in text]
    passing = os.path.join(QgsProcessingUtils.tempFolder(), "step of a model.tif")
    shutil.copy(image, passing)
    classify(INPUT=passing, STACK=[image, passing])
    assert [text for text in feedback.infos if "cannot be repeated" in text] == [
        f"The job in 'o.job.json' cannot be repeated once QGIS has removed its temporary files, for it reads "
        f"'{passing}'. To keep it repeatable, save such inputs as files of your own."
    ]
    assert json.loads((tmp_path / "o.job.json").read_text())["job"]["source"]["path"].endswith("step of a model.tif")


def test_a_file_that_the_engine_opens_is_not_copied(classify, tmp_path, image):
    job = classify()
    assert job["source"]["path"] == image and job["resume"] is True
    assert not list(tmp_path.glob("*input*"))


def test_a_cancelled_copy_and_one_that_fails_say_so(tmp_path, feedback, qgis_app):
    given = fits(tmp_path / "a.fits", [[1, 2, 3], [4, 5, -6]])
    with pytest.raises(BadInput, match="'mine' cannot be copied for the engine: "):
        rasterexport.export(given, (), str(tmp_path / "no folder" / "t.tif"), "mine", feedback)
    feedback.cancel()
    with pytest.raises(JobCancelled):
        rasterexport.export(given, (), str(tmp_path / "t.tif"), "mine", feedback)
