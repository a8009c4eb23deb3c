"""What reaches the engine: paths where they say all, exports where they do not, legends, extents."""

import json

import pytest
from deepscape.tests.qgis.layers import SQUARE, memory_polygons
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFeature,
    QgsFillSymbol,
    QgsGeometry,
    QgsPalettedRasterRenderer,
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor


@pytest.fixture
def sample(run, play, points_file, image, tmp_path):
    """Returns a function that runs selectvectorsamples and gives the job that the engine got."""
    play("selectvectorsamples", {"copy": [points_file, "$output"]}, {"result": {"sample_count": 2}})

    def start(source, field="class_id", **others):
        run("selectvectorsamples", INPUT=source, FIELD=field, RASTER=image, **{"OUTPUT": "memory:", **others})
        return play.jobs()[-1]

    return start


def test_a_file_goes_by_its_path(sample, polygons_file):
    assert sample(polygons_file)["vector"] == {"path": polygons_file, "layer": "", "crs": "", "label": "labels"}


def test_a_layer_of_a_file_goes_by_its_path_and_name(sample, polygons_file):
    job = sample(f"{polygons_file}|layername=labels")
    assert (job["vector"]["path"], job["vector"]["layer"]) == (polygons_file, "labels")


def test_relative_paths_become_absolute(sample, polygons_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert sample("labels.gpkg")["vector"]["path"] == polygons_file


def stays(sample, source, tmp_path):
    """Run with an output that stays; return what was kept of the input."""
    sample(source, OUTPUT=str(tmp_path / "out.gpkg"))
    saved = json.loads((tmp_path / "out.job.json").read_text())["job"]
    assert saved["vector"]["path"] == "./out.inputs.gpkg"
    assert saved["output"] == "./out.gpkg"
    layer = QgsVectorLayer(f"{tmp_path / 'out.inputs.gpkg'}|layername={saved['vector']['layer']}", "x", "ogr")
    return {feature.id(): feature["class_id"] for feature in layer.getFeatures()}, layer


def test_memory_layer_is_exported_and_kept_beside_the_output(sample, context, tmp_path):
    layer = memory_polygons((3, 4))
    QgsProject.instance().addMapLayer(layer)
    features, copy = stays(sample, layer.id(), tmp_path)
    assert features == {1: 3, 2: 4}
    assert copy.crs().authid() == "EPSG:4326"


def test_memory_layer_without_a_stay_leaves_nothing(sample, context, tmp_path, feedback):
    job = sample(memory_polygons())
    assert not [path for path in tmp_path.iterdir() if "inputs" in path.name]
    assert job["vector"]["layer"] == "input"
    assert any("copy" in text for text in feedback.infos)


def test_unsaved_edits_are_seen(sample, polygons_file, context, tmp_path):
    layer = QgsVectorLayer(polygons_file, "labels", "ogr")
    QgsProject.instance().addMapLayer(layer)
    layer.startEditing()
    layer.changeAttributeValue(1, layer.fields().indexOf("class_id"), 99)
    added = QgsFeature(layer.fields())
    added.setAttribute("class_id", 55)
    added.setGeometry(QgsGeometry.fromWkt(SQUARE.format(5, 6)))
    layer.addFeature(added)
    features, _ = stays(sample, layer.id(), tmp_path)
    assert features == {1: 99, 2: 7, 3: 55}
    layer.rollBack()


def test_ids_are_kept_with_gaps(sample, polygons_file, context, tmp_path):
    layer = QgsVectorLayer(polygons_file, "labels", "ogr")
    QgsProject.instance().addMapLayer(layer)
    layer.startEditing()
    layer.deleteFeature(1)
    features, _ = stays(sample, layer.id(), tmp_path)
    assert features == {2: 7}
    layer.rollBack()


def test_selection_only(sample, polygons_file, context, tmp_path):
    layer = QgsVectorLayer(polygons_file, "labels", "ogr")
    QgsProject.instance().addMapLayer(layer)
    layer.selectByIds([2])
    features, _ = stays(sample, QgsProcessingFeatureSourceDefinition(layer.id(), True), tmp_path)
    assert features == {2: 7}


def test_filtered_layer(sample, polygons_file, context, tmp_path):
    layer = QgsVectorLayer(polygons_file, "labels", "ogr")
    layer.setSubsetString('"class_id" = 7')
    QgsProject.instance().addMapLayer(layer)
    assert list(stays(sample, layer.id(), tmp_path)[0].values()) == [7]


def test_virtual_field(sample, polygons_file, context, tmp_path):
    from qgis.core import QgsField
    from qgis.PyQt.QtCore import QVariant

    layer = QgsVectorLayer(polygons_file, "labels", "ogr")
    layer.addExpressionField('"class_id" * 10', QgsField("ten", QVariant.Int))
    QgsProject.instance().addMapLayer(layer)
    job = sample(layer.id(), field="ten")
    assert job["vector"]["layer"] == "input"


def test_invalid_geometry_does_not_stop_the_export(sample, context, tmp_path):
    layer = memory_polygons((1,))
    feature = QgsFeature(layer.fields())
    feature.setAttributes([2])
    feature.setGeometry(QgsGeometry.fromWkt("POLYGON((0 0, 1 1, 1 0, 0 1, 0 0))"))
    layer.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(layer)
    assert stays(sample, layer.id(), tmp_path)[0] == {1: 1, 2: 2}


def test_a_field_named_fid_with_repeated_values(sample, context, tmp_path):
    layer = QgsVectorLayer("Polygon?crs=EPSG:4326&field=fid:integer&field=class_id:integer", "copied", "memory")
    for number in range(2):
        feature = QgsFeature(layer.fields())
        feature.setAttributes([8, number])
        feature.setGeometry(QgsGeometry.fromWkt(SQUARE.format(number, number + 1)))
        layer.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(layer)
    assert stays(sample, layer.id(), tmp_path)[0] == {1: 0, 2: 1}


def categorised(layer, attribute="class_id"):
    symbol = QgsFillSymbol.createSimple({"color": "#106b00"})
    layer.setRenderer(QgsCategorizedSymbolRenderer(attribute, [QgsRendererCategory(7, symbol, "Forest")]))
    return layer


@pytest.mark.parametrize(("attribute", "expected"), [("kind", "kind"), ('"kind"', "kind"), ("upper(kind)", "class_id")])
def test_an_empty_field_is_the_one_of_the_style(sample, context, attribute, expected):
    layer = categorised(memory_polygons(("water", "wood"), "kind:string"), attribute)
    QgsProject.instance().addMapLayer(layer)
    assert sample(layer.id(), field=None)["field"] == expected


def test_an_empty_field_is_class_id_whatever_the_style(sample, context):
    layer = categorised(memory_polygons((1, 7), "class_id:integer&field=split:string"), "split")
    QgsProject.instance().addMapLayer(layer)
    assert sample(layer.id(), field=None)["field"] == "class_id"


def test_an_empty_field_of_statistics_is_the_one_of_the_style_too(run, play, image, context, tmp_path):
    layer = categorised(memory_polygons(("water", "wood"), "kind:string"), "kind")
    QgsProject.instance().addMapLayer(layer)
    play("polygonstatistics", {"write": ["$output", "<x/>"]}, {"result": {}})
    run("polygonstatistics", INPUT=layer.id(), FIELD=None, RASTER=image, OUTPUT=str(tmp_path / "s.xml"))
    assert play.jobs()[-1]["field"] == "kind"


def test_erosion_and_distance_reach_the_engine(sample, polygons_file, tmp_path):
    job = sample(polygons_file, ERODE_POLYGONS=2, MIN_DISTANCE=5, REPORT=str(tmp_path / "r.html"))
    assert (job["erode_polygons"], job["min_distance"], job["report"]) == (2, 5, str(tmp_path / "r.html"))
    job = sample(polygons_file)
    assert (job["erode_polygons"], job["min_distance"], job["report"]) == (0, None, "")


FOREST = {"value": 7, "name": "Forest", "colour": "#106b00"}


def test_legend_of_the_layer_travels(sample, polygons_file, context):
    layer = categorised(QgsVectorLayer(polygons_file, "labels", "ogr"))
    QgsProject.instance().addMapLayer(layer)
    assert sample(layer.id())["legend"]["layer_classes"] == [FOREST]


def test_legend_of_another_field_does_not(sample, polygons_file, context):
    layer = categorised(QgsVectorLayer(polygons_file, "labels", "ogr"), "other")
    QgsProject.instance().addMapLayer(layer)
    assert sample(layer.id())["legend"]["layer_classes"] == []


def styled(attribute, values, fields="class_id:integer&field=class_name:string", rows=((1, "water"), (7, "wood"))):
    """A layer of polygons with these rows, styled by a field: its values, their labels and colours."""
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:4326&field={fields}", "both", "memory")
    for number, row in enumerate(rows):
        feature = QgsFeature(layer.fields())
        feature.setAttributes(list(row))
        feature.setGeometry(QgsGeometry.fromWkt(SQUARE.format(number, number + 1)))
        layer.dataProvider().addFeature(feature)
    symbols = (QgsFillSymbol.createSimple({"color": colour}) for colour in ("#0000ff", "#106b00"))
    layer.setRenderer(
        QgsCategorizedSymbolRenderer(
            attribute, [QgsRendererCategory(value, symbol, f"The {value}") for value, symbol in zip(values, symbols)]
        )
    )
    QgsProject.instance().addMapLayer(layer)
    return layer.id()


def legend_of(job):
    return [tuple(entry.values()) for entry in job["legend"]["layer_classes"]]


def test_a_style_by_number_is_that_of_the_name_beside_it(sample, context):
    classes = [(1, "water", "#0000ff"), (7, "wood", "#106b00")]
    assert legend_of(sample(styled("class_id", (1, 7)), field="class_name")) == classes
    rows = ((1, "water"), (1, "water"), (7, "wood"), (None, "wood"), (7, None))
    assert legend_of(sample(styled("class_id", (1, 7), rows=rows), field="class_name")) == classes


def test_a_style_by_name_is_that_of_the_number_beside_it(sample, context):
    named = [(1, "The water", "#0000ff"), (7, "The wood", "#106b00")]
    assert legend_of(sample(styled("class_name", ("water", "wood")), field="class_id")) == named
    # A name that no feature has is no class.
    more = styled("class_name", ("wood", "rock"))
    assert legend_of(sample(more, field="class_id")) == [(7, "The wood", "#0000ff")]


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ("class_id:integer&field=class_name:string", ((1, "a"), (1, "b"))),
        ("class_id:integer&field=class_name:string", ((1, "a"), (7, "a"))),
        ("class_id:integer&field=split:string", ((1, "a"), (7, "b"))),
        ("class_id:integer&field=name:integer", ((1, 3), (7, 4))),
    ],
)
def test_a_style_by_what_is_no_name_of_the_class_is_not_its_own(sample, context, fields, rows):
    other = fields.split("field=")[1].split(":")[0]
    assert legend_of(sample(styled(other, [row[1] for row in rows], fields, rows), field="class_id")) == []
    assert legend_of(sample(styled("class_id", (1, 7), fields, rows), field=other)) == []


def test_stored_style_of_a_layer_given_by_path(sample, polygons_file, tmp_path):
    categorised(QgsVectorLayer(polygons_file, "labels", "ogr")).saveNamedStyle(str(tmp_path / "labels.qml"))
    assert sample(polygons_file)["legend"]["layer_classes"] == [FOREST]


def test_names_as_categories_keep_their_names(sample, context, tmp_path):
    layer = memory_polygons(("water", "wood"), "kind:string")
    symbol = QgsFillSymbol.createSimple({"color": "#106b00"})
    layer.setRenderer(QgsCategorizedSymbolRenderer("kind", [QgsRendererCategory("wood", symbol, "The wood")]))
    QgsProject.instance().addMapLayer(layer)
    job = sample(layer.id(), field="kind")
    assert job["legend"]["layer_classes"] == [{"value": 1, "name": "wood", "colour": "#106b00"}]


def test_legend_of_a_paletted_raster(run, play, points_file, image, context):
    layer = QgsRasterLayer(image, "truth")
    palette = [QgsPalettedRasterRenderer.Class(7, QColor("#106b00"), "Forest")]
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, palette))
    QgsProject.instance().addMapLayer(layer)
    play("selectsamples", {"copy": [points_file, "$output"]})
    run("selectsamples", INPUT=layer.id(), OUTPUT="memory:")
    job = play.jobs()[-1]
    assert job["legend"]["layer_classes"] == [FOREST]
    # What fills up a colour table to 256 entries is no class.
    palette.append(QgsPalettedRasterRenderer.Class(8, QColor("#000000"), "8"))
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), 1, palette))
    run("selectsamples", INPUT=layer.id(), OUTPUT="memory:")
    assert play.jobs()[-1]["legend"]["layer_classes"] == [FOREST]
    assert job["source"] == {
        "path": image, "stack": [], "bands": [], "nodata": None, "crs": "", "label": "truth", "expressions": "",
    }  # fmt: skip


def test_optional_numbers_are_none_when_absent_and_zero_when_given(run, play, points_file, image):
    play("selectsamples", {"copy": [points_file, "$output"]})
    run("selectsamples", INPUT=image, OUTPUT="memory:")
    run("selectsamples", INPUT=image, OUTPUT="memory:", NODATA=0)
    assert [job["source"]["nodata"] for job in play.jobs()] == [None, 0]


def test_extent_keeps_its_crs(run, play, points_file, image):
    play("selectsamples", {"copy": [points_file, "$output"]})
    run("selectsamples", INPUT=image, OUTPUT="memory:", EXTENT="1,2,3,4 [EPSG:4326]")
    extent = play.jobs()[-1]["extent"]
    assert [extent[key] for key in ("xmin", "xmax", "ymin", "ymax")] == [1, 2, 3, 4]
    assert 'ID["EPSG",4326]' in extent["crs"] or "WGS 84" in extent["crs"]


def test_box_stack_and_bands(run, play, image, tmp_path):
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    run(
        "classify",
        INPUT=image,
        STACK=[image],
        BANDS=[1],
        MODEL=str(model),
        BOX="1:0:2:3",
        OUTPUT=str(tmp_path / "o.tif"),
    )
    job = play.jobs()[-1]
    assert job["box"] == [1, 0, 2, 3]
    assert job["source"]["stack"] == [image] and job["source"]["bands"] == [1]
    assert job["probabilities"] == job["confidence"] == job["entropy"] == job["margin"] == ""
    assert (job["probability_type"], job["format"], job["resume"]) == ("float32", "geotiff", True)
    assert job["overlap"] is None
    run("classify", INPUT=image, MODEL=str(model), BOX="1:0:2:3", OVERLAP=0, OUTPUT=str(tmp_path / "o.tif"))
    assert play.jobs()[-1]["overlap"] == 0


def test_what_of_an_image_is_mapped(run, play, image, polygons_file, tmp_path, feedback):
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    play("classify", {"copy": [image, "$output"]})
    given = {"INPUT": image, "MODEL": str(model), "OUTPUT": str(tmp_path / "o.tif")}
    run("classify", **given)
    names = ("mask", "mask_layer", "border", "min_confidence", "damaged", "memory")
    assert [play.jobs()[-1][name] for name in names] == [None, None, "reflect", None, "error", None]
    run("classify", MASK=image, BORDER="nodata", MIN_CONFIDENCE=0, DAMAGED="nodata", MEMORY=900, **given)
    job = play.jobs()[-1]
    assert job["mask"]["path"] == image and job["mask_layer"] is None
    assert [job[name] for name in names[2:]] == ["nodata", 0.0, "nodata", 900]
    assert job["source"]["nodata"] is None
    run("classify", NODATA=-9999, **given)
    assert play.jobs()[-1]["source"]["nodata"] == -9999
    run("classify", MASK=polygons_file, **given)
    assert play.jobs()[-1]["mask"] is None and play.jobs()[-1]["mask_layer"]["path"] == polygons_file
    layer = memory_polygons()
    run("classify", MASK=layer, **given)
    assert play.jobs()[-1]["mask_layer"]["path"].endswith(".gpkg") and not any(
        "are selected" in info for info in feedback.infos
    )
    # The dialog offers no choice of selected features where a raster may be given, too.
    layer.selectByIds([1])
    run("classify", MASK=layer, **given)
    told = next(info for info in feedback.infos if "are selected" in info)
    assert told.startswith("MASK: 1 of 2 features of 'labels' are selected, but all of them count.")
    mesh = tmp_path / "mesh.2dm"
    mesh.write_text("MESH2D\nND 1 0 0 0\nND 2 1 0 0\nND 3 0 1 0\nE3T 1 1 2 3 1\n")
    with pytest.raises(AssertionError):
        run("classify", MASK=str(mesh), **given)
    assert any(f"MASK '{mesh}' cannot be read as a vector layer" in text for text in feedback.warnings)


def test_runtime_and_precision_of_a_map(run, play, image, tmp_path):
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    play("classify", {"copy": [image, "$output"]})
    given = {"INPUT": image, "MODEL": str(model), "OUTPUT": str(tmp_path / "o.tif")}
    run("classify", **given)
    assert (play.jobs()[-1]["runtime"], play.jobs()[-1]["precision"]) == ("auto", "full")
    run("classify", RUNTIME="openvino", PRECISION="fast", **given)
    assert (play.jobs()[-1]["runtime"], play.jobs()[-1]["precision"]) == ("openvino", "fast")


def test_outputs_of_a_map(run, play, image, tmp_path):
    model = tmp_path / "m.safetensors"
    model.write_text("x")
    names = {name: str(tmp_path / f"{name}.tif") for name in ("ENTROPY", "MARGIN", "CONFIDENCE")}
    play("classify", *({"copy": [image, f"${name}"]} for name in ("output", "entropy", "margin", "confidence")))
    found = run(
        "classify", INPUT=image, MODEL=str(model), OUTPUT=QgsProcessing.TEMPORARY_OUTPUT, PROBABILITY_TYPE="uint8",
        FORMAT="cog", **names,
    )  # fmt: skip
    job = play.jobs()[-1]
    assert {name: job[name.lower()] for name in names} == {name: found[name] for name in names} == names
    # A temporary output has another name next time: nothing could continue it.
    assert (job["probability_type"], job["format"], job["resume"]) == ("uint8", "cog", False)
    assert job["output"] == found["OUTPUT"]


def test_crs_given_in_qgis_reaches_the_engine(run, play, points_file, tmp_path, context, image):
    from qgis.core import QgsCoordinateReferenceSystem

    bare = tmp_path / "bare.asc"
    bare.write_text("ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2\n3 4\n")
    layer = QgsRasterLayer(str(bare), "bare")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32721"))
    QgsProject.instance().addMapLayer(layer)
    play("selectsamples", {"copy": [points_file, "$output"]})
    run("selectsamples", INPUT=layer.id(), OUTPUT="memory:")
    assert "UTM zone 21S" in play.jobs()[-1]["source"]["crs"]


def test_an_output_over_an_input_is_refused(algorithm, context, feedback, play, polygons_file, image):
    play("selectvectorsamples")
    values = {"INPUT": polygons_file, "FIELD": "class_id", "RASTER": image, "OUTPUT": polygons_file}
    with pytest.raises(QgsProcessingException, match="would be overwritten"):
        algorithm("selectvectorsamples").run(values, context, feedback, {}, False)
    assert play.jobs() == []
