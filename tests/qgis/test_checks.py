"""Wrong parameters: our own sentence with the parameter, its value and the remedy, before any work."""

import re

import pytest
from deepscape.algorithms.checks import chosen_words
from deepscape.algorithms.values import Values
from deepscape.tasks.suffixes import kind_suffix
from osgeo import gdal
from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingParameterEnum,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsVectorFileWriter,
)


@pytest.fixture
def complaint(algorithm, context, image, polygons_file, tmp_path):
    """Returns a function that gives the sentence for an algorithm with one parameter changed."""
    model = tmp_path / "model.safetensors"
    model.write_text("x")
    (tmp_path / "patches").mkdir()
    good = {
        "selectvectorsamples": {
            "INPUT": polygons_file, "FIELD": "class_id", "RASTER": image, "OUTPUT": QgsProcessing.TEMPORARY_OUTPUT,
        },
        "selectsamples": {"INPUT": image, "OUTPUT": QgsProcessing.TEMPORARY_OUTPUT},
        "trainclassifier": {"TRAINING": str(tmp_path / "patches"), "OUTPUT": QgsProcessing.TEMPORARY_OUTPUT},
        "classify": {"INPUT": image, "MODEL": str(model), "OUTPUT": QgsProcessing.TEMPORARY_OUTPUT},
        "setupengine": {},
    }  # fmt: skip

    def check(name, **changes):
        values = {**good[name], **changes}
        found = algorithm(name)
        ok, sentence = found.checkParameterValues(values, context)
        assert ok == (sentence == "")
        return sentence

    return check


@pytest.mark.parametrize("name", ["selectvectorsamples", "selectsamples", "trainclassifier", "classify"])
def test_good_values_pass(complaint, name):
    assert complaint(name) == ""


def test_wrong_enum_value(complaint):
    assert complaint("selectsamples", STRATEGY="most") == (
        "STRATEGY 'most' is not a valid choice. Valid choices: upto, constant, total, smallest, all."
    )


def test_a_wrong_value_among_several(complaint):
    for good in (None, [], "openvino", ["openvino"]):
        assert complaint("setupengine", EXTRAS=good) == ""
    for wrong in ("tensorrt", "openvino,tensorrt", ["openvino", "tensorrt"]):
        assert complaint("setupengine", EXTRAS=wrong) == (
            "EXTRAS 'tensorrt' is not a valid choice. Valid choices: openvino."
        )


def test_a_choice_may_be_given_by_its_number(complaint, algorithm, context):
    def read(name, method, parameter, value):
        assert complaint(name, **{parameter: value}) == ""
        values = Values(algorithm(name), {parameter: value}, context, None, {})
        values.close()
        return getattr(values, method)(parameter)

    # What 'qgis_process help' offers: "1: constant".
    for number in (1, "1", "constant"):
        assert read("selectsamples", "choice", "STRATEGY", number) == "constant"
    for several in (0, "0", [0], ["0"], "openvino"):
        assert read("setupengine", "choices", "EXTRAS", several) == ("openvino",)
    for wrong in ("5", -1):
        assert f"STRATEGY '{wrong}' is not a valid choice" in complaint("selectsamples", STRATEGY=wrong)
    assert "EXTRAS '1' is not a valid choice" in complaint("setupengine", EXTRAS="0,1")
    # A word counts before a number.
    digits = QgsProcessingParameterEnum("CONNECTIVITY", "", options=["4", "8", "1"], usesStaticStrings=True)
    assert [chosen_words(digits, given) for given in ("8", "1", "0", 2)] == [["8"], ["1"], ["4"], ["1"]]


def test_wrong_network(complaint):
    assert complaint("trainclassifier", NETWORK="alexnet") == (
        "NETWORK 'alexnet' is not a valid choice. Valid choices: compact_cnn, simple_cnn, pixel_network, "
        "simple_fcn, book_fcn."
    )


def test_missing_files_and_folders(complaint, tmp_path):
    assert (
        complaint("classify", MODEL="/no/m.safetensors") == "MODEL '/no/m.safetensors' does not exist. Check the path."
    )
    assert complaint("classify", INPUT="/no/i.tif") == "INPUT '/no/i.tif' does not exist. Check the path."
    assert complaint("trainclassifier", TRAINING="/no/t") == "TRAINING '/no/t' does not exist. Check the path."
    assert complaint("selectvectorsamples", INPUT="/no/p.gpkg") == "INPUT '/no/p.gpkg' does not exist. Check the path."
    assert complaint("selectsamples", LEGEND=str(tmp_path)).endswith("is a folder. Choose a file.")


def test_a_file_that_is_no_raster(complaint, tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("no raster")
    assert complaint("classify", INPUT=str(path)) == f"INPUT '{path}' cannot be read as a raster. Choose another one."


@pytest.mark.parametrize(
    "address",
    [
        "https://x.org/a.tif",
        "/vsicurl/https://x.org/a.tif",
        "type=xyz&url=https://x.org/{z}/{x}/{y}.png",
        "/vsis3/b/a.tif",
    ],
)
def test_rasters_in_the_web(complaint, address):
    for name in ("INPUT", "STACK"):
        assert complaint("classify", **{name: address}) == (
            f"{name} '{address}' lies in the web, where rasters are not read by their address. Download the file and "
            "use that, or add it to QGIS and save the part that you need as GeoTIFF (Export > Save As...)."
        )


def test_files_of_several_rasters(complaint, tmp_path):
    path = str(tmp_path / "two.gpkg")
    for name, more in (("one", []), ("two", ["APPEND_SUBDATASET=YES"])):
        table = gdal.GetDriverByName("GPKG").Create(path, 8, 8, 1, gdal.GDT_Byte, [f"RASTER_TABLE={name}", *more])
        table.SetGeoTransform((0, 1, 0, 8, 0, -1))
        table.GetRasterBand(1).Fill(7)
        del table
    parts = f"GPKG:{path}:one", f"GPKG:{path}:two"
    assert complaint("classify", INPUT=path) == (
        f"INPUT '{path}' holds several rasters: {', '.join(parts)}. Add it to QGIS and choose the layer of one of "
        f"them, or make a GeoTIFF of it: gdal_translate '{parts[0]}' one.tif"
    )
    assert complaint("classify", INPUT=parts[1]) == (
        f"INPUT '{parts[1]}' is no file, and by their names QGIS opens files alone. Add it to QGIS and choose its "
        f"layer, or make a GeoTIFF of it: gdal_translate '{parts[1]}' one.tif"
    )
    layer = QgsRasterLayer(parts[1], "two")
    assert layer.isValid() and complaint("classify", INPUT=layer) == ""
    assert "does not exist" in complaint("classify", INPUT=f"GPKG:{path}:three")


def test_rasters_in_archives(complaint, zipped):
    assert complaint("classify", INPUT=zipped, STACK=[zipped], MASK=zipped) == ""
    layer = QgsRasterLayer(zipped, "zipped")
    assert layer.isValid() and complaint("classify", INPUT=layer) == ""
    missing, notes = zipped.replace("scene", "other"), zipped.replace("scene.tif", "notes.txt")
    for name in ("INPUT", "STACK"):
        assert complaint("classify", **{name: missing}) == f"{name} '{missing}' does not exist. Check the path."
        assert complaint("classify", **{name: notes}) == (
            f"{name} '{notes}' cannot be read as a raster. Choose another one."
        )


def test_missing_field_lists_the_fields(complaint):
    assert complaint("selectvectorsamples", FIELD="klass") == (
        "FIELD: 'labels' has no field 'klass'. Its fields are: fid, class_id."
    )


def test_numbers(complaint):
    assert complaint("selectsamples", COUNT=0) == "COUNT is 0, less than 1. Give 1 or more."
    assert complaint("selectsamples", COUNT="many") == "COUNT 'many' is no number. Give a number such as 1."
    assert complaint("trainclassifier", EPOCHS=1.5) == "EPOCHS is 1.5, which is no whole number. Give a whole number."
    assert complaint("selectsamples", SEED=99999999999999) == (
        "SEED is 99999999999999, more than 2147483647. Give 2147483647 or less."
    )
    assert complaint("selectsamples", SEED="1e400") == "SEED is 1e400, more than 2147483647. Give 2147483647 or less."
    assert complaint("selectsamples", SEED=10**400).endswith("more than 2147483647. Give 2147483647 or less.")
    assert complaint("selectsamples", COUNT="-inf") == "COUNT is -inf, less than 1. Give 1 or more."
    assert complaint("selectsamples", COUNT="nan") == "COUNT 'nan' is no number. Give a number such as 1."
    assert complaint("trainclassifier", VALIDATION_SHARE="nan") == (
        "VALIDATION_SHARE 'nan' is no number. Give a number such as 0.5."
    )
    assert (
        complaint("trainclassifier", VALIDATION_SHARE="inf") == "VALIDATION_SHARE is inf, more than 1. Give 1 or less."
    )
    assert complaint("trainclassifier", VALIDATION_SHARE=2) == "VALIDATION_SHARE is 2, more than 1. Give 1 or less."


def test_missing_required_value(complaint):
    assert complaint("classify", MODEL=None) == "MODEL (Model) is missing. Give a value for it."


def test_outputs(complaint, tmp_path):
    assert complaint("classify", OUTPUT=str(tmp_path / "map")) == ""
    assert complaint("classify", OUTPUT=str(tmp_path / "map.tiff")) == ""
    (tmp_path / "maps").mkdir()
    assert complaint("classify", OUTPUT=str(tmp_path / "maps")).endswith("maps' is a folder. Give a file name in it.")
    assert "Give a name that ends in .tif." in complaint("classify", OUTPUT=str(tmp_path / "map.jpg"))
    assert "does not exist. Create it" in complaint("classify", OUTPUT=str(tmp_path / "no" / "map.tif"))
    assert "does not exist. Create it" in complaint("selectsamples", OUTPUT=str(tmp_path / "no" / "points.gpkg"))


def test_an_output_of_another_kind_is_refused(complaint, algorithm, context, tmp_path):
    for suffix in (".gpkg", ".vrt", ".jp2", ".H5"):
        path = str(tmp_path / f"map{suffix}")
        assert complaint("classify", OUTPUT=path) == (
            f"OUTPUT '{path}' ends in {suffix.lower()}, but the file is written as .tif. Give a name that ends in .tif."
        )
    assert complaint("classify", OUTPUT="/dev/null") == (
        "OUTPUT '/dev/null' is a device. Give a file name that ends in .tif."
    )
    # Ends of names that are no suffixes.
    for name in ("map.v2", "map.2020", "map.10m", "tile.000"):
        path = str(tmp_path / name)
        assert complaint("classify", OUTPUT=path) == ""
        values = Values(algorithm("classify"), {"OUTPUT": path}, context, None, {})
        values.close()
        assert values.parameters["OUTPUT"] == f"{path}.tif"


def test_the_suffixes_of_all_formats_are_known(qgis_app):
    drivers = [gdal.GetDriver(number).GetMetadata() for number in range(gdal.GetDriverCount())]
    rasters = [driver for driver in drivers if driver.get("DCAP_RASTER") == "YES"]
    known = {suffix.lstrip(".") for driver in rasters for suffix in driver.get("DMD_EXTENSIONS", "").split()}
    known |= {*QgsVectorFileWriter.supportedFormatExtensions(), *QgsRasterFileWriter.supportedFormatExtensions()}
    assert {"jp2", "img", "gpkg"} <= known
    # Of nautical charts, but also the number of a tile.
    assert {suffix for suffix in known if suffix and not kind_suffix(f"map.{suffix}")} <= {"000"}


def test_sink_of_an_unknown_kind(complaint, tmp_path):
    assert "cannot be written" in complaint("selectsamples", OUTPUT=str(tmp_path / "points.unknown"))


def test_any_suffix_of_an_input_file(complaint, tmp_path):
    model = tmp_path / "renamed"
    model.write_text("x")
    assert complaint("classify", MODEL=str(model)) == ""


def test_extent_that_is_none(complaint):
    assert complaint("classify", EXTENT="here").startswith("EXTENT 'here' is no extent.")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"BOX": "1:2:3"}, "BOX '1:2:3' is not of the form x:y:w:h."),
        ({"BOX": "1:2:0:3"}, "BOX width is 0, less than 1."),
        ({"BOX": "0:0:1:1", "EXTENT": "0,1,0,1"}, "Both EXTENT and BOX are given."),
    ],
)
def test_boxes(algorithm, context, feedback, play, image, tmp_path, changes, sentence):
    model = tmp_path / "model.safetensors"
    model.write_text("x")
    values = {"INPUT": image, "MODEL": str(model), "OUTPUT": str(tmp_path / "o.tif"), **changes}
    with pytest.raises(QgsProcessingException, match=re.escape(sentence)):
        algorithm("classify").run(values, context, feedback, {}, False)


def test_class_list(algorithm, context, feedback, play, image):
    values = {"INPUT": image, "OUTPUT": "memory:", "CLASSES": "1, two"}
    with pytest.raises(QgsProcessingException, match="CLASSES holds 'two', which is no whole number"):
        algorithm("selectsamples").run(values, context, feedback, {}, False)


def test_a_value_given_twice(complaint, image):
    """qgis_process makes a list of it, of which QGIS reads an empty text: the whole image would be mapped."""
    assert (
        complaint("classify", BOX=["1:2:3:4", "abc"])
        == "BOX has several values (1:2:3:4, abc). Give it once, as one text."
    )
    assert "MEMORY has several values (300, 400)" in complaint("classify", MEMORY=["300", "400"])
    assert "TTA has several values" in complaint("classify", TTA=["none", "full"])
    assert complaint("classify", MODELS=[image]) == complaint("classify", MODELS=image) == ""
