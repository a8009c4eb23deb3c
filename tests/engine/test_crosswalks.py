"""Crosswalks: the table's forms and faults, labels of every type, fields of numbers and of text, and the legend."""

import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio
from deepscape.engine.classes import class_texts, feature_classes
from deepscape.engine.crosswalks import Crosswalk, read_crosswalk
from deepscape.engine.datasets import PatchDataset
from deepscape.engine.patches import extract_patches
from deepscape.engine.rastersampling import select_samples
from deepscape.engine.vectors import Layer
from deepscape.engine.vectorsampling import select_vector_samples
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import ExtractPatches, RasterSource, SelectSamples, SelectVectorSamples, VectorSource
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from shapely.geometry import Point, box

TABLE = "from,to,name,colour\n1,10,Water,#0000ff\n2,10,,\n3,,,\n4,2,Wood,\n"


@pytest.fixture
def table(tmp_path):
    def write(text=TABLE, name="walk.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def layer(**fields):
    number = len(next(iter(fields.values())))
    return Layer(geopandas.GeoDataFrame(fields, geometry=[Point(i, 0) for i in range(number)]), "points")


def classes_of(values, path, legend=Legend(), keep=(), context=None):
    found = feature_classes(
        layer(kind=values), "kind", context or Context(), legend, keep, crosswalk=read_crosswalk(path)
    )
    return np.where(found.known, found.ids, -1).tolist(), found.classes


def test_the_table(table):
    expected = Crosswalk("walk.csv", {"1": 10, "2": 10, "3": None, "4": 2}, {10: ("Water", "#0000ff"), 2: ("Wood", "")})
    assert read_crosswalk(table()) == expected
    # As spreadsheets write it: a byte order mark, semicolons, other columns, and American spelling.
    text = "\ufeffTo; From;note;Color;Name\n10; 01;x;#0000FF;Water\n10;2;;;\n;3;;;\n2;4;;;Wood\n\n"
    assert read_crosswalk(table(text)) == expected
    assert read_crosswalk(table("from\tto\nLake, large\t1\n")).targets == {"Lake, large": 1}
    assert read_crosswalk(table('from,to\n"Lake, large",1\n')).targets == {"Lake, large": 1}
    assert read_crosswalk("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,name\n1,Water\n", "CROSSWALK 'walk.csv' has no column 'to'"),
        ("", "has no column 'from'"),
        ("from,to\n", "lists no class"),
        ("from,to\n1,2\n01,3\n", "lists the class 1 twice"),
        ("from,to\n1,2.5\n", r"turns 1 into '2\.5', which is no whole number"),
        ("from,to,colour\n1,2,blue\n", "The colour 'blue' of class 2"),
        ("from,to,name\n1,2,Water\n5,2,Lake\n", "gives class 2 the name 'Water' and 'Lake'"),
    ],
)
def test_faults_are_named(table, text, message):
    with pytest.raises(BadInput, match=message):
        read_crosswalk(table(text))
    with pytest.raises(BadInput, match=r"The CROSSWALK '.*none.csv' cannot be read"):
        read_crosswalk(table()[:-8] + "none.csv")


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32"]),
    targets=st.dictionaries(st.integers(0, 9).map(str), st.none() | st.integers(-3, 300), min_size=1),
    seed=st.integers(0, 2**32 - 1),
)
def test_labels_of_every_type_follow_the_table(dtype, targets, seed):
    generator = np.random.default_rng(seed)
    labels, valid = generator.integers(0, 12, (7, 5)).astype(dtype), generator.random((7, 5)) < 0.8
    if dtype == "float32":
        labels[~valid] = np.nan
    walk = Crosswalk("w", targets, {})
    found, inside = walk.of_labels(labels, valid)
    counts = {}
    for place in np.ndindex(labels.shape):
        target = targets.get(str(int(labels[place])), int(labels[place])) if valid[place] else None
        assert inside[place] == (target is not None)
        if target is not None:
            assert found[place] == target
            counts[target] = counts.get(target, 0) + 1
    present, number = np.unique(labels[valid], return_counts=True)
    assert walk.of_counts({int(v): int(n) for v, n in zip(present, number)}) == counts


def test_samples_of_a_label_raster(tmp_path, table):
    labels = np.array([[1, 2, 3, 4], [1, 1, 7, 0]], "uint8")
    with rasterio.open(
        tmp_path / "l.tif", "w", driver="GTiff", width=4, height=2, count=1, dtype="uint8", nodata=0, crs="EPSG:32654",
        transform=from_origin(0, 20, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(labels, 1)
    style = Legend(layer_classes=tuple(ClassEntry(v, f"Old {v}", "#010203") for v in (1, 2, 7, 10)))
    job = SelectSamples(
        RasterSource(str(tmp_path / "l.tif")), str(tmp_path / "s.gpkg"), strategy="all", crosswalk=table(), legend=style
    )
    result = select_samples(job, Context())
    frame = pyogrio.read_dataframe(result.output)
    assert list(zip(frame["class_id"], frame.geometry.x, frame.geometry.y)) == [
        (10, 5, 15), (10, 15, 15), (2, 35, 15), (10, 5, 5), (10, 15, 5), (7, 25, 5)
    ]  # fmt: skip
    assert result.counts == {"2": 1, "7": 1, "10": 4}
    # What the layer's style called 2 and 10 has become something else; 7 is what it was.
    assert [(e.value, e.name) for e in result.classes] == [(2, "Wood"), (7, "Old 7"), (10, "Water")]
    assert result.classes[1].colour == "#010203" and result.classes[2].colour == "#0000ff"
    kept = select_samples(
        SelectSamples(job.source, job.output, crosswalk=job.crosswalk, classes=(10,), count=2), Context()
    )
    assert kept.counts == {"10": 2}
    with pytest.raises(BadInput, match=r"No class of CROSSWALK 'no.csv' \(99\) occurs in 'l.tif'.* 1, 2, 3, 4, 7\."):
        select_samples(SelectSamples(job.source, job.output, crosswalk=table("from,to\n99,1\n", "no.csv")), Context())
    nothing = table("from,to\n1,\n2,\n3,\n4,\n7,\n", "all.csv")
    with pytest.raises(BadInput, match=r"CROSSWALK 'all.csv' ignores every class of 'l.tif'"):
        select_samples(SelectSamples(job.source, job.output, crosswalk=nothing), Context())


def test_a_field_of_numbers(table):
    context = Context()
    ids, classes = classes_of([1, 2, 3, 5], table(), context=context)
    assert ids == [10, 10, -1, 5]
    assert [(e.value, e.name) for e in classes] == [(5, "Class 5"), (10, "Water")]
    assert context.warnings == ["CROSSWALK 'walk.csv' lists 4, which do not occur in 'points'."]
    assert classes_of([1.0, None, 4.0], table())[0] == [10, -1, 2]
    assert classes_of(["1", "2", "5"], table(), keep=(10,))[0] == [10, 10, -1]


def test_a_field_of_text(table):
    path = table("from,to,name\nSea,1,Water\nLake,1,\nCloud,,\nField,5,\n")
    ids, classes = classes_of(["Sea", "Lake", "Cloud", "Wood", "Field", None, "Water"], path)
    # Wood is not listed: it gets the first number that the table does not use; Water is the table's own name.
    assert ids == [1, 1, -1, 2, 5, -1, 1]
    assert [(e.value, e.name) for e in classes] == [(1, "Water"), (2, "Wood"), (5, "Field")]


def test_merged_classes_have_no_text_of_their_own(table):
    data = layer(kind=["Sea", "Lake", "Wood"])
    walk = read_crosswalk(table("from,to,name\nSea,1,Water\nLake,1,\n"))
    assert class_texts(data, "kind", feature_classes(data, "kind", Context(), crosswalk=walk)) == {1: "1", 2: "2"}


def test_samples_of_polygons(tmp_path, table):
    with rasterio.open(
        tmp_path / "i.tif", "w", driver="GTiff", width=8, height=2, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(0, 20, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.zeros((1, 2, 8), "uint8"))
    # Sea and Lake claim one pixel together: as they become one class, it is no conflict, and counts once.
    kinds = ["Sea", "Lake", "Cloud", "Wood"]
    squares = [box(0, 0, 20, 20), box(10, 0, 30, 20), box(40, 0, 60, 20), box(60, 0, 70, 20)]
    pyogrio.write_dataframe(geopandas.GeoDataFrame({"kind": kinds}, geometry=squares, crs=32654), tmp_path / "p.gpkg")
    job = SelectVectorSamples(
        VectorSource(str(tmp_path / "p.gpkg")), "kind", RasterSource(str(tmp_path / "i.tif")), str(tmp_path / "s.gpkg"),
        strategy="all", crosswalk=table("from,to,name,colour\nSea,1,Water,#0000ff\nLake,1,,\nCloud,,,\n"),
        rates=str(tmp_path / "r.csv"),
    )  # fmt: skip
    context = Context()
    result = select_vector_samples(job, context)
    assert result.counts == {"1": 6, "2": 2} and context.warnings == []
    assert [(e.value, e.name) for e in result.classes] == [(1, "Water"), (2, "Wood")]
    frame = pyogrio.read_dataframe(result.output)
    assert sorted(zip(frame["class_id"], frame["class_name"], frame["kind"])) == (
        [(1, "Water", "Lake")] * 2 + [(1, "Water", "Sea")] * 4 + [(2, "Wood", "Wood")] * 2
    )


def test_patches_have_the_classes_of_the_table(tmp_path, table):
    with rasterio.open(
        tmp_path / "i.tif", "w", driver="GTiff", width=8, height=1, count=1, dtype="uint8", crs="EPSG:32654",
        transform=from_origin(0, 10, 10, 10),
    ) as dataset:  # fmt: skip
        dataset.write(np.arange(8, dtype="uint8")[None, None])
    points = geopandas.GeoDataFrame(
        {"class_id": [1, 2, 3, 4]}, geometry=[Point(10 * i + 5, 5) for i in range(4)], crs="EPSG:32654"
    )
    pyogrio.write_dataframe(points, tmp_path / "p.gpkg")
    result = extract_patches(
        ExtractPatches(
            RasterSource(str(tmp_path / "i.tif")), VectorSource(str(tmp_path / "p.gpkg")), "class_id",
            str(tmp_path / "patches"), patch_size=1, crosswalk=table(),
        ),
        Context(),
    )  # fmt: skip
    assert (result.accepted, result.counts) == (3, {"2": 1, "10": 2})
    assert [(e.value, e.name) for e in result.classes] == [(2, "Wood"), (10, "Water")]
    assert PatchDataset(str(tmp_path / "patches")).description.classes == result.classes
