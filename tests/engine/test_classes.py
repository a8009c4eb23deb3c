"""Class fields: whole numbers, decimals, text, NULL, names beside them, and the keep list."""

import geopandas
import pandas
import pytest
from deepscape.engine.classes import feature_classes
from deepscape.engine.crosswalks import read_crosswalk
from deepscape.engine.vectors import Layer
from deepscape.tasks.classtable import ClassEntry, Legend
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from shapely.geometry import Point


def layer(**fields):
    count = len(next(iter(fields.values())))
    return Layer(geopandas.GeoDataFrame(fields, geometry=[Point(i, i) for i in range(count)]), "v")


def read(features, field="c", **more):
    context = Context()
    classes = feature_classes(features, field, context, **more)
    return classes.ids.tolist(), classes.known.tolist(), classes.name_of(), context.warnings


def test_whole_numbers_of_any_size():
    ids, known, names, warnings = read(layer(c=[0, 255, -4, 100_000]))
    assert ids == [0, 255, -4, 100_000] and all(known) and warnings == []
    assert names == {value: f"Class {value}" for value in (-4, 0, 255, 100_000)}


def test_decimals_with_null_as_files_without_integer_types_have_them():
    ids, known, _, warnings = read(layer(c=[1.0, None, 3.0]))
    assert [i for i, k in zip(ids, known) if k] == [1, 3] and known == [True, False, True]
    assert warnings == ["1 features of 'v' have no class (NULL); they are left out."]
    with pytest.raises(BadInput, match=r"holds 2\.5, which is no class"):
        read(layer(c=[1.0, 2.5]))


def test_text_is_numbered_by_name_or_by_the_legend():
    ids, known, names, _ = read(layer(c=["water ", "forest", None, "", "water"]))
    assert known == [True, True, False, False, True] and names == {1: "forest", 2: "water"}
    assert [ids[0], ids[1], ids[4]] == [2, 1, 2]
    legend = Legend(layer_classes=(ClassEntry(7, "forest", "#00ff00"),))
    ids, _, names, _ = read(layer(c=["water", "forest"]), legend=legend)
    assert ids == [1, 7] and names == {1: "water", 7: "forest"}


def test_numbers_among_names_are_names_and_told(tmp_path):
    features = layer(c=["1", "2", "03", "x", "4 trees"])
    ids, _, names, warnings = read(features)
    assert names == {1: "03", 2: "1", 3: "2", 4: "4 trees", 5: "x"} and ids == [2, 3, 1, 5, 4]
    assert warnings == [
        "The field 'c' of 'v' holds text that is no number, so that its numbers are names: '03' is class 1, '1' is "
        "class 2, '2' is class 3; give a field of whole numbers, or a LEGEND with their values."
    ]
    legend = Legend(layer_classes=tuple(ClassEntry(v, n, "#000000") for v, n in ((1, "1"), (2, "2"), (3, "03"))))
    assert read(features, legend=legend)[3] == []
    (tmp_path / "c.csv").write_text("from,to\nx,9\n1,7\n")
    told = read(features, crosswalk=read_crosswalk(str(tmp_path / "c.csv")))[3]
    assert [text.split("names: ")[1].split(";")[0] for text in told] == ["'03' is class 1"]


def test_text_of_whole_numbers_keeps_its_numbers():
    assert read(layer(c=["10", "2", "-1"]))[0] == [10, 2, -1]
    assert read(layer(c=["10", "2", "a"]))[0] == [1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Class_Name": ["a", "b", "a"]}, {1: "a", 2: "b"}),
        ({"landuse_label": ["a", "b", "a"]}, {1: "a", 2: "b"}),
        ({"name": ["x", "y", "z"], "label": ["a", "b", "a"]}, {1: "a", 2: "b"}),  # single polygons have names
        ({"name": ["a", "a", "a"]}, {1: "Class 1", 2: "Class 2"}),
        ({"owner": ["a", "b", "a"]}, {1: "Class 1", 2: "Class 2"}),
        ({"name": ["a", None, "a"]}, {1: "a", 2: "Class 2"}),
        ({"name": [5, 6, 5]}, {1: "Class 1", 2: "Class 2"}),
    ],
)
def test_names_come_from_a_field_beside_the_class(fields, expected):
    assert read(layer(c=[1, 2, 1], **fields))[2] == expected


def test_a_legend_goes_before_the_name_field():
    legend = Legend(layer_classes=(ClassEntry(1, "Wald", "#00ff00"),))
    assert read(layer(c=[1, 2], name=["a", "b"]), legend=legend)[2] == {1: "Wald", 2: "b"}


def test_the_keep_list():
    _, known, names, warnings = read(layer(c=[1, 2, 3]), keep=(1, 3, 9))
    assert known == [True, False, True] and set(names) == {1, 3}
    assert warnings == ["CLASSES lists 9, which do not occur in 'v'."]
    with pytest.raises(BadInput, match=r"No class of CLASSES \(8, 9\) occurs in 'v'\. Its classes are: 1, 2, 3"):
        read(layer(c=[1, 2, 3]), keep=(8, 9))


def test_missing_and_empty_fields():
    with pytest.raises(BadInput, match=r"'v' has no field 'x'\. Its fields are: c, d"):
        read(layer(c=[1], d=[2]), "x")
    for empty in ([None, None], ["", " "], pandas.array([None, None], dtype="Int64")):
        with pytest.raises(BadInput, match=r"'c' of 'v' is empty \(NULL\) in every feature"):
            read(layer(c=empty))
