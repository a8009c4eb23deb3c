"""Four cities as one training set, through qgis_process: each is left out once, and one is mapped unseen.

Aerial images of 0.6 m with the trees of four cities as points (urban-tree-detection-data, CC BY 4.0). The points, other
places away from them come from QGIS's own algorithms, a mosaic per city from GDAL, all else from the plugin.
"""

import functools
import json
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deepscape.tests.end_to_end.conftest import PROGRAM, Run
from osgeo import gdal

TREES = Path(__file__).resolve().parents[3] / "shared" / "data" / "trees_naip"
TILES = {
    "claremont": (6, 9),
    "long_beach": (4, 18),
    "riverside": (60, 63),
    "santa_monica": (28, 88),
}
# The files call the near infrared an alpha band, which is a mask unless it is asked for.
BANDS = "1;2;3;4"
LEGEND = {"classes": [
    {"value": 0, "name": "other", "colour": "#e6c35c"}, {"value": 1, "name": "tree", "colour": "#1b7837"},
]}  # fmt: skip

pytestmark = [
    pytest.mark.real_worker,
    pytest.mark.slow,
    pytest.mark.skipif(not TREES.is_dir(), reason="the images of trees_naip are not beside this checkout"),
]


def run_any(environment, name, **parameters):
    """Run any algorithm; a list gives its parameter several times."""
    arguments = [
        f"--{key}={one}"
        for key, value in parameters.items()
        for one in (value if isinstance(value, (list, tuple)) else [value])
    ]
    done = subprocess.run(
        [PROGRAM, "run", name, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=300,
    )  # fmt: skip
    result = Run(done)
    assert result.code == 0, result.text
    return result


def labelled_points(run, out, tiles, others_per_tile=70):
    """Make points of trees (class 1) and of other places at least 4 m from any tree (class 0); returns their file."""
    images = [TREES / "images" / f"{name}.tif" for name in tiles]
    points = [TREES / "json" / f"{name}.json" for name in tiles]

    def trees():
        run("native:mergevectorlayers", LAYERS=points, CRS="EPSG:26911", OUTPUT=out / "trees.shp")
        run("native:buffer", INPUT=out / "trees.shp", DISTANCE=4, SEGMENTS=8, OUTPUT=out / "crowns.shp")

    def places():
        run("gdal:tileindex", LAYERS=images, OUTPUT=out / "tiles.shp")
        run(
            "native:randompointsinpolygons", INPUT=out / "tiles.shp", POINTS_NUMBER=2 * others_per_tile,
            MIN_DISTANCE=4, MAX_TRIES_PER_POINT=20, SEED=1, INCLUDE_POLYGON_ATTRIBUTES="false",
            OUTPUT=out / "places.shp",
        )  # fmt: skip

    together([trees, places])
    run(
        "native:extractbylocation", INPUT=out / "places.shp", PREDICATE=2, INTERSECT=out / "crowns.shp",
        OUTPUT=out / "others.shp",
    )  # fmt: skip
    run("native:mergevectorlayers", LAYERS=[out / "trees.shp", out / "others.shp"], OUTPUT=out / "both.shp")
    run(
        "native:fieldcalculator", INPUT=out / "both.shp", FIELD_NAME="class_id", FIELD_TYPE=1,
        FORMULA='if("rand_point" is null, 1, 0)', OUTPUT=out / "samples.gpkg",
    )  # fmt: skip
    return out / "samples.gpkg"


def together(steps):
    """Do steps that do not need each other beside each other: most of their time is the start of QGIS."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(step) for step in steps]:
            done.result()


def mosaic(out, city, tiles):
    """Make a mosaic of a city's tiles."""
    images = [str(TREES / "images" / f"{city}_2020_{tile}.tif") for tile in tiles]
    found = gdal.BuildVRT(str(out / f"{city}.vrt"), images, VRTNodata=0)
    assert found is not None
    del found  # writes the file


def city_datasets(run, out, samples, cities, patch_size):
    """Make a mosaic of each city's tiles and cut its patches; returns the datasets' folders."""
    (out / "legend.json").write_text(json.dumps(LEGEND), encoding="utf-8")
    for city, tiles in cities.items():
        mosaic(out, city, tiles)

    def extract(city):
        run(
            "deepscape:extractpatches", INPUT=out / f"{city}.vrt", BANDS=BANDS, SAMPLES=samples, FIELD="class_id",
            PATCH_SIZE=patch_size, NODATA_RULE="all", LEGEND=out / "legend.json", OUTPUT=out / f"patches of {city}",
            FOOTPRINTS="TEMPORARY_OUTPUT",
        )  # fmt: skip

    together([functools.partial(extract, city) for city in cities])
    return [out / f"patches of {city}" for city in cities]


@pytest.fixture(scope="module")
def cities(environment, tmp_path_factory):
    """The four patch datasets, what runs algorithms, and the folder."""
    out = tmp_path_factory.mktemp("four cities")

    def run(name, **parameters):
        return run_any(environment, name, **parameters)

    samples = labelled_points(run, out, [f"{city}_2020_{tile}" for city, some in TILES.items() for tile in some])
    return run, out, city_datasets(run, out, samples, TILES, patch_size=9)


def further(folders):
    return [folder / "dataset.json" for folder in folders[1:]]


def test_every_city_is_left_out_once(cities):
    run, out, folders = cities
    done = run(
        "deepscape:trainclassifier", TRAINING=folders[0], MORE_DATASETS=further(folders), CROSS_VALIDATION="scene",
        NETWORK="compact_cnn", EPOCHS=3, PATIENCE=0, OUTPUT=out / "all.safetensors", REPORT=out / "all.html",
    )  # fmt: skip
    assert done.outputs["ACCURACY_SET"] == "test"
    crossed = json.loads(done.outputs["METRICS"])["cross_validation"]
    assert [row["scene"] for row in crossed["scenes"]] == list(TILES)
    assert min(row["samples"] for row in crossed["scenes"]) > 100
    # Trees are found in cities that no model has seen, though not equally well.
    assert min(row["kappa"] for row in crossed["scenes"]) > 0.2
    assert float(done.outputs["KAPPA"]) > 0.5 and crossed["deviation"]["kappa"] > 0
    assert "Scene 'riverside' left out (3 of 4): overall accuracy" in done.text
    assert "Scenes left out" in (out / "all.html").read_text(encoding="utf-8")


def test_a_city_that_was_held_out_is_mapped_and_assessed(cities):
    run, out, folders = cities
    done = run(
        "deepscape:trainclassifier", TRAINING=folders[0], MORE_DATASETS=further(folders), SPLIT_BY="scene",
        TEST_SCENES="santa_monica", EPOCHS=3, OUTPUT=out / "held.safetensors",
    )  # fmt: skip
    assert done.outputs["ACCURACY_SET"] == "test" and float(done.outputs["KAPPA"]) > 0.3
    assert "Scenes held out for the test: santa_monica." in done.text
    assert "Scenes that validate: " in done.text
    tile = TREES / "images" / "santa_monica_2020_28.tif"
    run("deepscape:classify", INPUT=tile, BANDS=BANDS, MODEL=out / "held.safetensors", OUTPUT=out / "map.tif")
    judged = run(
        "deepscape:assess", INPUT=out / "map.tif", REFERENCE_SAMPLES=out / "samples.gpkg", FIELD="class_id",
        OUTPUT=out / "accuracy.html",
    )  # fmt: skip
    assert int(judged.outputs["SAMPLE_COUNT"]) > 80 and float(judged.outputs["KAPPA"]) > 0.2


def test_a_forest_takes_the_four_cities(cities):
    run, out, folders = cities
    done = run(
        "deepscape:trainrandomforest", TRAINING=folders[0], MORE_DATASETS=further(folders), FEATURES="window",
        CROSS_VALIDATION="scene", OUTPUT=out / "forest.safetensors",
    )  # fmt: skip
    assert float(done.outputs["KAPPA"]) > 0.3


def test_the_samples_are_those_of_both_classes(cities):
    with sqlite3.connect(cities[1] / "samples.gpkg") as database:
        counts = dict(database.execute("SELECT class_id, count(*) FROM samples GROUP BY 1"))
    assert counts[1] == 605 and counts[0] > 800
