"""Assessment: known matrices from rasters, points and polygons, on the same grid and on others."""

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from deepscape.engine import assessment, assessmentdesign
from deepscape.engine.assessment import assess, near_another_class
from deepscape.engine.datasets import (
    DatasetBand,
    DatasetDescription,
    DatasetScene,
    DatasetSource,
    write_description,
)
from deepscape.engine.legends import write_sidecars
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Assess, RasterSource, VectorSource
from hypothesis import given, settings
from hypothesis import strategies as st

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_800_000)
CRS = "EPSG:32721"
CLASSES = (ClassEntry(1, "Water", "#7fbcfc"), ClassEntry(2, "Forest", "#106b00"), ClassEntry(5, "Soil", "#a15c44"))
MAP = np.array([[1, 1, 2, 2], [1, 2, 2, 5], [5, 5, 255, 5], [1, 1, 1, 2]], np.uint8)


def write(path, values, transform=TRANSFORM, crs=CRS, nodata=255):
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=values.shape[0], width=values.shape[1], dtype=values.dtype,
        nodata=nodata, crs=crs, transform=transform,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return RasterSource(str(path))


def class_map(folder, values=MAP, **options):
    source = write(folder / "map.tif", values, **options)
    write_sidecars(source.path, CLASSES, {})
    return source


def layer(path, geometries, crs=CRS, **fields):
    geopandas.GeoDataFrame(fields, geometry=geometries, crs=crs).to_file(path, driver="GPKG")
    return VectorSource(str(path))


def box(row, col, height, width):
    """A polygon a little smaller than these pixels: their centres are inside."""
    x, y = TRANSFORM @ (col, row)
    return shapely.box(x + 2, y - 10 * height + 2, x + 10 * width - 2, y - 2)


def point(row, col):
    return shapely.Point(*(TRANSFORM @ (col + 0.5, row + 0.5)))


def matrix_of(result):
    return result.metrics["values"], result.metrics["matrix"]


def test_a_raster_on_the_same_grid(tmp_path):
    reference = MAP.copy()
    reference[0, 0], reference[1, 3], reference[3, 3], reference[3, 0] = 2, 0, 9, 1
    reference[2, 2] = 2  # the map is no-data there
    job = Assess(class_map(tmp_path), reference=write(tmp_path / "r.tif", reference, nodata=0))
    result = assess(job, Context())
    values, matrix = matrix_of(result)
    # Rows are the reference, columns the map: one pixel of 2 is mapped as 1, one of 9 as 2.
    assert values == [1, 2, 5, 9]
    assert matrix == [[5, 0, 0, 0], [1, 4, 0, 0], [0, 0, 3, 0], [0, 1, 0, 0]]
    assert result.sample_count == 14 and result.groups == 0 and result.metrics["unmapped"] == 1
    assert result.overall_accuracy == pytest.approx(12 / 14)
    assert [row["name"] for row in result.metrics["classes"]] == ["Water", "Forest", "Soil", "Class 9"]
    forest = result.metrics["classes"][1]
    assert (forest["recall"], forest["precision"]) == (0.8, 0.8)
    assert any("no-data on 1 reference pixels" in text for text in result.warnings)
    assert any("no class 'Class 9'" in text for text in result.warnings)


def test_points_count_one_by_one_and_may_have_another_crs(tmp_path):
    samples = layer(
        tmp_path / "p.gpkg", [point(0, 0), point(0, 0), point(0, 2), point(2, 2), point(50, 50)], kind=[1, 2, 2, 5, 1]
    )
    frame = geopandas.read_file(samples.path).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "q.gpkg", driver="GPKG")
    for path in (samples.path, str(tmp_path / "q.gpkg")):
        result = assess(Assess(class_map(tmp_path), samples=VectorSource(path), field="kind"), Context())
        assert matrix_of(result) == ([1, 2], [[1, 0], [1, 1]])
        assert (result.sample_count, result.groups, result.metrics["unmapped"]) == (3, 0, 1)
        assert any("1 of 5 features" in text for text in result.warnings)
        assert "3 reference points" in result.metrics["reach"]


def test_polygons_by_name(tmp_path):
    samples = layer(
        tmp_path / "p.gpkg", [box(0, 0, 2, 2), box(2, 0, 1, 4), box(0, 2, 1, 2)], cover=["Water", "Soil", "Forest"]
    )
    context = Context()
    result = assess(Assess(class_map(tmp_path), samples=samples, field="cover"), context)
    assert matrix_of(result) == ([1, 2, 5], [[3, 1, 0], [0, 2, 0], [0, 0, 3]])
    assert result.groups == 3 and result.sample_count == 9
    assert result.metrics["polygons"] == {
        "count": 3, "per_class": {"Water": 1, "Forest": 1, "Soil": 1}, "majority_right": 3,
    }  # fmt: skip
    assert "3 polygons are 3 clusters, not 9 independent pixels" in result.metrics["reach"]


def test_a_name_that_the_map_does_not_know(tmp_path):
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 1, 2), box(0, 2, 1, 2)], cover=["Water", "Lava"])
    result = assess(Assess(class_map(tmp_path), samples=samples, field="cover"), Context())
    values, matrix = matrix_of(result)
    lava = next(row for row in result.metrics["classes"] if row["name"] == "Lava")
    assert lava["value"] not in (1, 2, 5) and result.overall_accuracy == 0.5
    assert matrix[values.index(lava["value"])][values.index(2)] == 2
    assert any("'Lava'" in text for text in result.warnings)


@pytest.mark.parametrize("name", ["forêt  dense ", "Fore\u0302t dense", "FORÊT DENSE"])
def test_a_name_that_differs_in_case_and_spaces_alone_is_asked_about(tmp_path, name):
    source = class_map(tmp_path)
    write_sidecars(source.path, (*CLASSES[:1], replace(CLASSES[1], name="Forêt dense"), *CLASSES[2:]), {})
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 1, 2), box(0, 2, 1, 2)], cover=["Water", name])
    result = assess(Assess(source, samples=samples, field="cover"), Context())
    told = f"The map has no class '{name.strip()}' (did you mean 'Forêt dense'?), which 'p.gpkg' holds: all its"
    assert any(text.startswith(told) for text in result.warnings), result.warnings


def test_classes_of_much_of_the_map_that_the_reference_lacks_are_told(tmp_path, monkeypatch):
    # Lava is rare, and Ice is not there.
    values = np.full((40, 40), 2, np.uint8)
    values[:, 30:], values[:10, :20], values[20, 20], values[39] = 5, 1, 9, 255
    source = write(tmp_path / "map.tif", values, nodata=255)
    names = (*CLASSES, ClassEntry(7, "Ice", "#ffffff"), ClassEntry(9, "Lava", "#ff0000"))
    write_sidecars(source.path, names, {})
    samples = layer(tmp_path / "p.gpkg", [point(0, 0), point(0, 1)], cover=["Water", "Forest"])
    told = (
        "The compared pixels of the reference hold no 'Soil', which is 25 % of the map: what is said here does not "
        "speak of it."
    )
    for window, most in ((4_000_000, 200_000_000), (80, 800)):
        monkeypatch.setattr(assessmentdesign, "_WINDOW_PIXELS", window)
        monkeypatch.setattr(assessmentdesign, "_LOOKED_AT", most)
        assert told in assess(Assess(source, samples=samples, field="cover"), Context()).warnings
    samples = layer(tmp_path / "q.gpkg", [point(0, 25), point(0, 26)], cover=["Soil", "Forest"])
    monkeypatch.undo()
    warnings = assess(Assess(source, samples=samples, field="cover"), Context()).warnings
    assert any("no 'Water', which is 13 % of the map: what is said here does not speak of it." in w for w in warnings)
    samples = layer(tmp_path / "r.gpkg", [point(0, 25), point(39, 0), point(20, 20)], cover=["Ice", "Lava", "Lava"])
    warnings = assess(Assess(source, samples=samples, field="cover"), Context()).warnings
    assert any(
        "no 'Forest', which is 62 % of the map, no 'Soil', which is 25 % of the map and no 'Water', which is 13 % of "
        "the map: what is said here does not speak of them." in text for text in warnings
    )  # fmt: skip


def test_a_reference_that_covers_the_map_speaks_of_all_of_it(tmp_path):
    # Soil is nowhere in the reference, which looked at every pixel of it: these are errors, and counted.
    reference = np.where(MAP == 5, 2, MAP)
    job = Assess(class_map(tmp_path), reference=write(tmp_path / "r.tif", reference, nodata=255))
    assert not any("does not speak" in text for text in assess(job, Context()).warnings)


def test_names_without_a_legend_are_refused_and_work_with_one(tmp_path):
    source = write(tmp_path / "bare.tif", MAP)
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 1, 2)], cover=["Water"])
    with pytest.raises(BadInput, match="carries none"):
        assess(Assess(source, samples=samples, field="cover"), Context())
    result = assess(Assess(source, samples=samples, field="cover", legend=Legend(layer_classes=CLASSES)), Context())
    assert result.overall_accuracy == 1.0
    with pytest.raises(BadInput, match="no field 'covr'"):
        assess(Assess(source, samples=samples, field="covr"), Context())


def test_overlapping_polygons_count_once_or_not_at_all(tmp_path):
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 1, 2), box(0, 1, 1, 2), box(0, 2, 1, 2)], kind=[1, 1, 2])
    result = assess(Assess(class_map(tmp_path), samples=samples, field="kind"), Context())
    assert matrix_of(result) == ([1, 2], [[2, 0], [0, 1]])
    assert any("1 pixels are claimed" in text for text in result.warnings)


def test_points_drawn_from_polygons_are_counted_as_polygons(tmp_path):
    samples = layer(
        tmp_path / "p.gpkg", [point(0, 0), point(0, 1), point(1, 2), point(0, 3)], kind=[1, 1, 2, 1],
        originfid=[7, 7, 8, 9],
    )  # fmt: skip
    result = assess(Assess(class_map(tmp_path), samples=samples, field="kind"), Context())
    assert result.groups == 3 and result.metrics["polygons"]["majority_right"] == 2


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326", "EPSG:3857"])
def test_a_reference_on_another_grid_is_taken_by_nearest_neighbour(tmp_path, crs):
    values = np.random.default_rng(3).integers(1, 4, (40, 30)).astype(np.uint8)
    mapped = write(tmp_path / "map.tif", values)
    fine = np.kron(values, np.ones((8, 8), np.uint8))
    transform = TRANSFORM @ Affine.scale(1 / 8)
    reference = write(tmp_path / "r.tif", fine, transform=transform)
    if crs != CRS:
        with rasterio.open(reference.path) as source:
            target, width, height = rasterio.warp.calculate_default_transform(
                source.crs, crs, source.width, source.height, *source.bounds
            )
            out = np.full((height, width), 255, np.uint8)
            rasterio.warp.reproject(
                fine, out, src_transform=transform, src_crs=CRS, dst_transform=target, dst_crs=crs, dst_nodata=255
            )
        reference = write(tmp_path / "w.tif", out, transform=target, crs=crs)
    result = assess(Assess(mapped, reference=reference), Context())
    assert result.overall_accuracy == 1.0 and result.sample_count == 1200


def test_a_reference_with_finer_pixels_is_taken_by_majority(tmp_path):
    finer = np.kron(np.array([[1, 1, 2, 2], [1, 2, 2, 5], [5, 5, 2, 5], [1, 1, 1, 2]]), np.ones((2, 2))).astype(
        np.uint8
    )
    finer[0, :2] = 5  # half of pixel (0, 0): no majority
    reference = write(tmp_path / "r.tif", finer, TRANSFORM @ Affine.scale(0.5))
    result = assess(Assess(class_map(tmp_path), reference=reference), Context())
    assert result.overall_accuracy == 1.0 and result.sample_count == 14
    assert any("1 pixels of 'map.tif' hold several labels of the finer 'r.tif'" in text for text in result.warnings)


def crosswalk(path, text):
    path.write_text("from,to,name,colour\n" + text, encoding="utf-8")
    return str(path)


def test_a_crosswalk_turns_the_classes_of_a_reference_raster_into_the_map_s(tmp_path):
    reference = np.array([[11, 11, 22, 22], [11, 23, 23, 5], [5, 5, 5, 5], [11, 11, 11, 99]], np.uint8)
    table = crosswalk(tmp_path / "t.csv", "11,1,,\n22,2,,\n23,2,,\n99,,,\n")
    result = assess(
        Assess(class_map(tmp_path), reference=write(tmp_path / "r.tif", reference), crosswalk=table), Context()
    )
    assert matrix_of(result) == ([1, 2, 5], [[6, 0, 0], [0, 4, 0], [0, 0, 4]])
    # The names are the map's: its legend speaks of the classes that the table leads to.
    assert [row["name"] for row in result.metrics["classes"]] == ["Water", "Forest", "Soil"]
    wrong = crosswalk(tmp_path / "w.csv", "77,1,,\n")
    with pytest.raises(BadInput, match=r"No class of CROSSWALK 'w\.csv' \(77\) occurs in 'r\.tif'"):
        assess(
            replace(Assess(class_map(tmp_path), reference=RasterSource(str(tmp_path / "r.tif"))), crosswalk=wrong),
            Context(),
        )


def test_a_crosswalk_turns_texts_into_the_map_s_classes(tmp_path):
    samples = layer(
        tmp_path / "s.gpkg", [point(0, 0), point(0, 2), point(1, 3), point(3, 0), point(2, 0)],
        cover=["lake", "wood", "field", "Water", "cloud"],
    )  # fmt: skip
    table = crosswalk(tmp_path / "t.csv", "lake,1,,\nwood,2,,\nfield,5,,\ncloud,,,\n")
    result = assess(Assess(class_map(tmp_path), samples=samples, field="cover", crosswalk=table), Context())
    # "Water" is not listed: the map's legend knows it.
    assert matrix_of(result) == ([1, 2, 5], [[2, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert [row["name"] for row in result.metrics["classes"]] == ["Water", "Forest", "Soil"]


def test_a_crosswalk_stands_in_for_the_legend_of_a_map_without_one(tmp_path):
    bare = write(tmp_path / "map.tif", MAP)
    samples = layer(tmp_path / "s.gpkg", [point(0, 0), point(0, 2)], cover=["lake", "wood"])
    table = crosswalk(tmp_path / "t.csv", "lake,1,Lake,\nwood,2,Wood,\n")
    result = assess(Assess(bare, samples=samples, field="cover", crosswalk=table), Context())
    assert result.overall_accuracy == 1.0
    assert [row["name"] for row in result.metrics["classes"]] == ["Lake", "Wood"]
    half = crosswalk(tmp_path / "h.csv", "lake,1,,\n")
    with pytest.raises(BadInput, match="carries none"):
        assess(Assess(bare, samples=samples, field="cover", crosswalk=half), Context())


def eroded_by_hand(labels, known, radius):
    near = np.zeros(labels.shape, bool)
    for row, col in zip(*np.nonzero(known)):
        for r, c in zip(*np.nonzero(known)):
            near[row, col] |= (r - row) ** 2 + (c - col) ** 2 <= radius**2 and labels[r, c] != labels[row, col]
    return near


@settings(max_examples=20, deadline=None)
@given(radius=st.integers(1, 5), seed=st.integers(0, 1000))
def test_erosion_is_that_of_a_disc(radius, seed):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.choice([-4, 0, 7, 10**12], (3, 4)), np.ones((5, 4), np.int64))
    known = rng.random(labels.shape) < 0.8
    assert (near_another_class(labels, known, radius) == eroded_by_hand(labels, known, radius)).all()


@pytest.mark.parametrize("kind", ["raster", "polygons"])
def test_reference_near_another_class_is_left_out(tmp_path, monkeypatch, kind):
    truth = np.full((40, 50), 1, np.uint8)
    truth[:, 20:], truth[15:, 30:], truth[30:, :10] = 2, 5, 255
    mapped = write(tmp_path / "map.tif", np.where(truth == 255, 1, truth).astype(np.uint8))
    near = eroded_by_hand(truth, truth != 255, 3)
    if kind == "raster":
        job = Assess(mapped, reference=write(tmp_path / "r.tif", truth), erode=3)
    else:
        shapes = [box(0, 0, 30, 20), box(30, 10, 10, 10), box(0, 20, 15, 30), box(15, 20, 25, 10), box(15, 30, 25, 20)]
        job = Assess(mapped, samples=layer(tmp_path / "p.gpkg", shapes, c=[1, 1, 2, 2, 5]), field="c", erode=3)
    whole = assess(job, Context())
    assert whole.metrics["eroded"] == near.sum() > 200
    assert whole.sample_count == (truth != 255).sum() - near.sum()
    monkeypatch.setattr(assessment, "_TILE", 7)
    monkeypatch.setattr(assessment, "_STRIP_PIXELS", 150)
    assert assess(job, Context()).metrics["matrix"] == whole.metrics["matrix"]
    with pytest.raises(BadInput, match="lie nearer to another class than ERODE asks for"):
        assess(replace(job, erode=60), Context())


def test_the_edge_of_a_polygon_that_stands_alone_is_no_boundary(tmp_path):
    """Of two polygons side by side the seam is eroded, of one with nothing around it nothing is."""
    mapped = write(tmp_path / "map.tif", np.ones((20, 20), np.uint8))
    alone = layer(tmp_path / "alone.gpkg", [box(2, 2, 5, 5), box(12, 2, 5, 5)], c=[1, 2])
    context = Context()
    result = assess(Assess(mapped, samples=alone, field="c", erode=2), context)
    assert (result.sample_count, result.metrics["eroded"]) == (50, 0)
    assert any("ERODE 2 leaves nothing out: no labelled pixel of 'alone.gpkg'" in text for text in context.warnings)
    both = layer(tmp_path / "both.gpkg", [box(2, 2, 5, 5), box(2, 7, 5, 5)], c=[1, 2])
    context = Context()
    result = assess(Assess(mapped, samples=both, field="c", erode=2), context)
    assert (result.sample_count, result.metrics["eroded"]) == (30, 20) and context.warnings == []


def test_points_have_no_boundary_to_erode(tmp_path):
    samples = layer(tmp_path / "s.gpkg", [point(0, 0), point(0, 2)], c=[1, 2])
    with pytest.raises(BadInput, match=r"ERODE leaves out the boundaries of polygons, but 's\.gpkg' holds points"):
        assess(Assess(class_map(tmp_path), samples=samples, field="c", erode=1), Context())
    with pytest.raises(BadInput, match="ERODE"):
        Assess(class_map(tmp_path), samples=samples, field="c", erode=-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_tiles_do_not_change_the_matrix(height, width, seed):
    import tempfile

    generator = np.random.default_rng(seed)
    values = generator.choice(np.array([-3, 0, 7, 300], np.int32), (height, width))
    labels = generator.choice(np.array([-3, 0, 7, 70_000], np.int32), (height, width))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(assessment, "_TILE", 16)
        job = Assess(
            write(Path(folder) / "m.tif", values, nodata=None),
            reference=write(Path(folder) / "r.tif", labels, nodata=0),
        )
        if not (labels != 0).any():
            return
        result = assess(job, Context())
    found = dict(zip([-3, 0, 7, 300, 70_000], [0] * 5))
    order, matrix = matrix_of(result)
    for i, reference in enumerate(order):
        for j, mapped in enumerate(order):
            expected = int(((labels == reference) & (values == mapped) & (labels != 0)).sum())
            assert matrix[i][j] == expected
            found[mapped] += expected
    assert sum(found.values()) == result.sample_count == int((labels != 0).sum())


def test_page_and_otb_matrix_are_written(tmp_path):
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 2, 2), box(2, 0, 1, 4)], cover=["Water", "Soil"])
    job = Assess(
        class_map(tmp_path), str(tmp_path / "report"), str(tmp_path / "matrix"), samples=samples, field="cover"
    )
    result = assess(job, Context())
    assert (result.output, result.matrix) == (str(tmp_path / "report.html"), str(tmp_path / "matrix.csv"))
    assert Path(result.matrix).read_text().splitlines() == [
        "#Reference labels (rows):1,2,5", "#Produced labels (columns):1,2,5", "3,1,0", "0,0,0", "0,0,3",
    ]  # fmt: skip
    page = Path(result.output).read_text(encoding="utf-8")
    for text in ("Confusion matrix", "2 polygons are 2 clusters", "Water", "#7fbcfc", "map.tif"):
        assert text in page
    assert "no-data on 1 reference pixels" in page


def patch_dataset(folder, places, size, splits, scene_crs=CRS, transform=TRANSFORM, shape=(4, 4)):
    folder.mkdir()
    count = len(places)
    with rasterio.open(
        folder / "labels.tif", "w", driver="GTiff", count=1, height=count, width=1, dtype="uint8"
    ) as dataset:
        dataset.write(np.ones((1, count, 1), np.uint8))
    geopandas.GeoDataFrame(
        {
            "patch": range(count), "class_id": [1] * count, "class_name": [""] * count, "split": splits,
            "accepted": [True] * count, "reason": [""] * count, "row": [p[0] for p in places],
            "col": [p[1] for p in places], "originfid": [-1] * count,
        },
        geometry=[shapely.Point(0, 0)] * count, crs=scene_crs,
    ).to_file(folder / "patches.gpkg", driver="GPKG")  # fmt: skip
    wkt = rasterio.crs.CRS.from_user_input(scene_crs).to_wkt()
    scene = DatasetScene("scene", "scene.tif", wkt, tuple(transform[:6]), shape[1], shape[0], 10.0)
    band = DatasetBand("", None, 1.0, 0.0, False, 0.0, 1.0)
    write_description(
        str(folder),
        DatasetDescription(
            (DatasetSource("source1.tif", size, "uint8", (band,)),), CLASSES, scene, count, {"1": count}
        ),
    )
    return str(folder)


def test_reference_pixels_in_training_patches_are_counted(tmp_path):
    # A patch of 2 around pixel (1, 1) covers rows and columns 0 to 1; the patch at (3, 3) is held out.
    training = patch_dataset(tmp_path / "d", [(1, 1), (3, 3)], 2, ["train", "test"])
    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 2, 3), box(3, 2, 1, 2)], kind=[1, 2])
    job = Assess(class_map(tmp_path), samples=samples, field="kind", training=training)
    result = assess(job, Context())
    assert result.shared_pixels == 4 and result.sample_count == 8
    assert any("4 of 8 reference pixels" in text for text in result.warnings)
    raster = replace(job, samples=None, field="", reference=write(tmp_path / "r.tif", np.where(MAP == 255, 1, MAP)))
    assert assess(raster, Context()).shared_pixels == 4
    geographic = geopandas.GeoSeries([shapely.Point(*TRANSFORM @ (0, 0))], crs=CRS).to_crs("EPSG:4326").iloc[0]
    other = patch_dataset(
        tmp_path / "e", [(0, 0)], 1, ["train"], "EPSG:4326", Affine(1e-4, 0, geographic.x, 0, -1e-4, geographic.y)
    )
    assert assess(replace(job, training=other), Context()).shared_pixels == 1
    description = Path(other, "dataset.json")
    plain = json.loads(description.read_text())
    plain["scene"].update(path="", width=0, height=0)
    description.write_text(json.dumps(plain))
    context = Context()
    assert assess(replace(job, training=other), context).shared_pixels == 0
    told = "lie is not known: reference pixels inside them were not looked for."
    assert any(told in text for text in context.warnings)


def test_bad_input(tmp_path):
    source = class_map(tmp_path)
    far = layer(tmp_path / "far.gpkg", [shapely.box(0, 0, 1, 1)], kind=[1])
    with pytest.raises(BadInput, match=r"No feature of 'far\.gpkg' \(EPSG:32721\) lies on the map"):
        assess(Assess(source, samples=far, field="kind"), Context())
    on_nodata = layer(tmp_path / "n.gpkg", [point(2, 2)], kind=[1])
    with pytest.raises(BadInput, match="no-data on all 1 labelled pixels"):
        assess(Assess(source, samples=on_nodata, field="kind"), Context())
    with pytest.raises(BadInput, match="labels no pixel"):
        assess(Assess(source, reference=write(tmp_path / "r.tif", np.full((4, 4), 255, np.uint8))), Context())
    away = write(tmp_path / "a.tif", MAP, transform=Affine(10, 0, 0, 0, -10, 0))
    with pytest.raises(BadInput, match=r"The labels 'a\.tif' \(EPSG:32721\) lie outside 'map\.tif'"):
        assess(Assess(source, reference=away), Context())
    with pytest.raises(BadInput, match=r"1\.5, which is no class"):
        assess(Assess(source, reference=write(tmp_path / "f.tif", np.full((4, 4), 1.5, np.float32))), Context())
    geopandas.GeoDataFrame({"kind": []}, geometry=[], crs=CRS).to_file(tmp_path / "empty.gpkg", driver="GPKG")
    with pytest.raises(BadInput, match="empty"):
        assess(Assess(source, samples=VectorSource(str(tmp_path / "empty.gpkg")), field="kind"), Context())
    with pytest.raises(BadInput, match="not a patch dataset"):
        assess(Assess(source, samples=on_nodata, field="kind", training=str(tmp_path)), Context())


def test_the_result_travels_as_json(tmp_path):
    from deepscape.tasks.jobs import result_to_json

    samples = layer(tmp_path / "p.gpkg", [box(0, 0, 2, 2)], kind=[1])
    result = assess(Assess(class_map(tmp_path), samples=samples, field="kind"), Context())
    assert json.loads(result_to_json(result))["metrics"]["polygons"]["count"] == 1
