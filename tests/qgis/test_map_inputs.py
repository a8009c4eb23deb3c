"""What *Classify an image* makes of extents and further models."""

import pytest
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProject,
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
