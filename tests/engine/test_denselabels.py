"""Labels on an image's grid, of rasters and of features: what is read over the edge, what is unclear or elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from affine import Affine
from deepscape.engine.denselabels import BACKGROUND
from deepscape.engine.labelsources import open_labels
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.conventions import conventional_colours
from deepscape.tasks.errors import BadInput

from .labelsets import GRID, layer, random_labels, raster, read_all


def test_windows_over_the_edge_are_not_labelled_there(tmp_path):
    truth = random_labels(50, 60)
    with open_labels(raster(tmp_path / "l.tif", truth, GRID.transform), None, "", GRID, "image", Context()) as opened:
        labels, valid = opened.read(-3, -4, 10, 12)
        assert not valid[:3].any() and not valid[:, :4].any() and valid[3:, 4:].all()
        assert (labels[3:, 4:] == truth[:7, :8]).all()
        assert not opened.read(45, 55, 20, 20)[1][5:].any()
        assert not opened.read(500, 500, 4, 4)[1].any()


def test_unclear_pixels_count_once_however_often_they_are_read(tmp_path):
    truth = np.tile(np.array([[1, 2], [1, 2]], np.uint8), (50, 60))
    with open_labels(
        raster(tmp_path / "l.tif", truth, GRID.transform * Affine.scale(0.5)), None, "", GRID, "image", Context()
    ) as opened:
        opened.read(0, 0, 10, 10)
        opened.read(5, 5, 10, 10)
        opened.read(-5, -5, 10, 10)
        assert opened.ignored == 175
        with pytest.raises(BadInput, match="labels no pixel of 'image' where it was read"):
            opened.finish(Context())


def test_names_come_from_the_legend(tmp_path):
    source = raster(tmp_path / "l.tif", random_labels(50, 60), GRID.transform)
    legend = Legend(layer_classes=(ClassEntry(7, "Water", "#0000ff"), ClassEntry(8, "Other", "#ff0000")))
    assert [entry.name for entry in read_all(source, legend=legend)[2].classes] == ["Class 1", "Class 2", "Water"]


@pytest.mark.parametrize(
    ("file", "label", "name", "colour"),
    [
        ("plots.gpkg", "", "plots", "#332288"),
        ("plots v1.2.gpkg", "", "plots v1.2", "#332288"),
        ("plots.gpkg", "Roofs 0.3 m", "Roofs 0.3 m", "#332288"),
        # As where the name comes from a legend or a field, a well-known one brings its colour.
        ("l.gpkg", "Water", "Water", conventional_colours("Water")[0]),
    ],
)
def test_the_only_class_is_called_as_its_layer_is_else_its_file(tmp_path, file, label, name, colour):
    source = replace(layer(tmp_path / file, [shapely.box(380000, 3949500, 380600, 3950000)], [3]), label=label)
    with open_labels(None, source, "", GRID, "image", Context(), background=True) as opened:
        assert opened.classes == (BACKGROUND, ClassEntry(1, name, colour))
    given = Legend(layer_classes=(ClassEntry(1, "From the style", "#0000ff"),))
    with open_labels(None, source, "", GRID, "image", Context(), legend=given) as opened:
        assert opened.classes == given.layer_classes


def test_labels_elsewhere_are_refused(tmp_path):
    source = raster(tmp_path / "l.tif", random_labels(50, 60), GRID.transform * Affine.translation(1000, 0))
    with pytest.raises(BadInput, match=r"The labels 'l.tif' \(EPSG:32654\) lie outside 'image' \(EPSG:32654\)"):
        read_all(source)
    points = layer(tmp_path / "p.gpkg", [shapely.Point(0, 0)], [1])
    with pytest.raises(BadInput, match=r"No feature of 'p.gpkg' lies on 'image' \(EPSG:32654\)"):
        read_all(points)
