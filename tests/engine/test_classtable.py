"""Class tables: legends in every form, their order of precedence, the palette and the style that comes out."""

import pytest
from deepscape.tasks.classtable import (
    NOMENCLATURES,
    PALETTE,
    STYLES,
    ClassEntry,
    Legend,
    class_ids_of_names,
    nomenclature,
    other_names,
    palette_colour,
    raster_qml,
    read_legend,
    resolve,
    taken_for_one,
)
from deepscape.tasks.conventions import conventional_colours
from deepscape.tasks.errors import BadInput

WATER, WOOD = ClassEntry(0, "Water", "#7fbcfc"), ClassEntry(300, "Bois é", "#106b00")


ROWS = [
    '{"value": 300, "name": "Bois é", "colour": "#106B00"}',
    '{"value": 0, "name": "Water", "colour": "#7fbcfc"}',
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", f"[{ROWS[0]}, {ROWS[1]}]"),
        ("l.JSON", f'{{"classes": [{ROWS[1]}, {ROWS[0]}]}}'),
        ("l.csv", "value,name,colour\n0,Water,#7fbcfc\n300,Bois é,#106b00\n"),
        ("l.csv", "\ufeffvalue;name;color\n300; Bois é ;#106B00\n0;Water;#7fbcfc\n"),
        ("l.qml", raster_qml([WATER, WOOD])),
    ],
)  # fmt: skip
def test_legends_of_every_form_give_the_same_table(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_legend(str(tmp_path / name)) == (WATER, WOOD)


@pytest.mark.parametrize(
    "symbol", ['<prop k="color" v="127,188,252,255"/>', '<Option type="QString" name="color" value="127,188,252,255"/>']
)
def test_a_categorised_vector_style_gives_its_classes(tmp_path, symbol):
    (tmp_path / "v.qml").write_text(
        f"""<qgis><renderer-v2 type="categorizedSymbol"><categories>
        <category value="0" label="Water" symbol="0"/><category value="" label="" symbol="0"/>
        </categories><symbols><symbol name="0"><layer>{symbol}</layer></symbol></symbols></renderer-v2></qgis>"""
    )
    assert read_legend(str(tmp_path / "v.qml")) == (WATER,)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.txt", "", "of no known form"),
        ("l.json", "{", "cannot be understood"),
        ("l.json", "[]", "holds no class"),
        ("l.csv", "value,name\n1,a\n", "cannot be understood"),
        ("l.csv", "value,name,colour\n1,a,#000000\n1,b,#000000\n", "lists the value 1 twice"),
        ("l.csv", "value,name,colour\n1,a,red\n", "colour 'red' of class 1"),
        ("l.qml", "<qgis>", "cannot be understood"),
        ("l.qml", '<!DOCTYPE q [<!ENTITY a "b">]><qgis/>', "declares XML entities"),
    ],
)
def test_bad_legends_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=said):
        read_legend(str(tmp_path / name))


def test_a_missing_legend_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        read_legend(str(tmp_path / "absent.json"))


def test_nomenclatures():
    assert [(entry.value, entry.name, entry.colour) for entry in nomenclature("tokyo")] == [
        (0, "Water", "#7fbcfc"), (1, "Golf course", "#3fd200"), (2, "Park and grassland", "#efd700"),
        (3, "Buildings", "#ff0004"), (4, "Forest", "#106b00"), (5, "Farm", "#a15c44"),
    ]  # fmt: skip
    assert {entry.value for entry in nomenclature("worldcover")} >= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100}
    assert [(entry.value, entry.colour) for entry in nomenclature("isprs")] == [
        (0, "#ffffff"), (1, "#0000ff"), (2, "#00ffff"), (3, "#00ff00"), (4, "#ffff00"), (5, "#ff0000"), (6, "#000000")
    ]  # fmt: skip
    assert [entry.name for entry in nomenclature("corine1")][:2] == ["Artificial surfaces", "Agricultural areas"]
    assert {entry.value: entry.colour for entry in nomenclature("oso")}[23] == "#0000ff"
    assert [entry.value for entry in nomenclature("oso")] == list(range(1, 24))
    assert [entry.value for entry in nomenclature("dynamicworld")] == list(range(9))
    assert nomenclature("none") == ()
    with pytest.raises(BadInput, match=r"no nomenclature 'mars'.*tokyo"):
        nomenclature("mars")


def test_order_of_precedence(tmp_path):
    (tmp_path / "l.csv").write_text("value,name,colour\n0,Legend,#000000\n")
    legend = Legend(
        str(tmp_path / "l.csv"), "tokyo", (ClassEntry(0, "x", "#111111"), ClassEntry(1, "x", "#111111"),
        ClassEntry(9, "Layer", "#222222")),
    )  # fmt: skip
    table = resolve([11, 9, 1, 0, 10, 0], legend, {0: "n", 9: "n", 10: "Named"})
    assert [(entry.value, entry.name) for entry in table] == [
        (0, "Legend"), (1, "Golf course"), (9, "Layer"), (10, "Named"), (11, "Class 11"),
    ]  # fmt: skip
    assert [entry.colour for entry in table[3:]] == [PALETTE[3], PALETTE[4]]


def test_ids_of_names_keep_those_of_the_legend_and_fill_the_gaps():
    legend = Legend(layer_classes=(ClassEntry(1, "water", "#000000"), ClassEntry(3, "rock", "#000000")))
    assert class_ids_of_names(["wood", "water", "ash", "wood"], legend) == {"water": 1, "ash": 2, "wood": 4}
    assert class_ids_of_names(["b", "a"]) == {"a": 1, "b": 2}


def test_palette_colours_are_distinct_also_beyond_its_length():
    colours = [palette_colour(number) for number in range(40)]
    assert len(set(colours)) == 40 and all(ClassEntry(0, "", colour) for colour in colours)


def test_well_known_names_get_their_conventional_colours():
    names = {1: "Bare soil", 2: "Eaux", 3: "Forêt de feuillus", 4: "Class 4", 5: "Water bodies", 6: "Buildings", 7: "x"}
    table = resolve(names, names=names)
    assert [entry.colour for entry in table] == [
        "#bbbbbb", "#4477aa", "#117733", PALETTE[1], "#332288", "#cc6677", PALETTE[2],
    ]  # fmt: skip
    assert len({entry.colour for entry in table}) == 7
    assert resolve(reversed(list(names)), names=names) == table


def test_a_legend_wins_over_convention_and_its_colours_are_not_given_twice():
    legend = Legend(layer_classes=(ClassEntry(1, "Water", "#ff0000"), ClassEntry(2, "Lake", "#4477aa")))
    names = {1: "Water", 2: "Lake", 3: "River"}
    assert [entry.colour for entry in resolve(names, legend, names)] == ["#ff0000", "#4477aa", "#332288"]


@pytest.mark.parametrize(
    "name", ["non-forest", "other than water", "Water and forest", "Class 3", "Seattle", "crossroads", ""]
)
def test_names_that_say_nothing_sure_keep_the_palette(name):
    assert conventional_colours(name) == ()


@pytest.mark.parametrize("name", [name for name in NOMENCLATURES if name != "none"])
def test_every_nomenclature_has_a_style_of_the_same_classes_and_distinct_colours(name):
    classes = nomenclature(name)
    assert read_legend(str(STYLES / f"{name}.qml")) == classes
    assert len({entry.colour for entry in classes}) == len(classes)


def entries(**names):
    return [ClassEntry(int(key[1:]), name, "#000000") for key, name in names.items()]


def compared(first, second):
    return other_names({entry.value: (entry, "'a'") for entry in first}, second, "'b'", "Do so.")


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [
        (entries(_1="water", _2="forest"), entries(_1="Water ", _2="FOREST"), []),
        (entries(_1="water", _2="forest"), entries(_1="water", _2="wood", _3="town"), [2]),
        # A class without a name goes with any; so does one that the other table does not have.
        (entries(_1="water", _2="forest"), entries(_1="Class 1", _2="2", _3="class 3"), []),
        (entries(_1="Class 1", _2="Class 2"), entries(_1="crop", _2="water"), []),
        (entries(_1="water"), entries(_2="forest"), []),
        # An accent may be a sign of its own, and words be joined.
        (entries(_1="For\u00eat", _2="Low vegetation"), entries(_1="Fore\u0302t", _2="low_vegetation"), []),
        # Parts of one class may have its name.
        (entries(_1="forest", _2="forest", _3="water"), entries(_2="forest", _3="water"), []),
    ],
)
def test_names_that_differ_are_found(first, second, other):
    assert [entry.value for entry in compared(first, second)] == other


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            entries(_1="forest", _2="water"), entries(_1="crop", _2="Forest", _3="water"),
            "'Forest' is class 2 in 'b' and class 1 in 'a', 'water' is class 3 in 'b' and class 2 in 'a'",
        ),
        (entries(_1="crop", _2="sea"), entries(_1="road", _2="Class 2"), "class 1 is 'crop' in 'a' and 'road' in 'b'"),
        # A number that is no class's own is a name.
        (entries(_1="03", _2="1"), entries(_1="1", _2="03"), "'03' is class 2 in 'b' and class 1 in 'a'"),
        (
            entries(_1="a", _2="b", _3="c", _4="d", _5="e"), entries(_1="f", _2="g", _3="h", _4="i", _5="j"),
            "class 1 is 'a' in 'a' and 'f' in 'b', class 2 is 'b' in 'a' and 'g' in 'b', class 3 is 'c' in 'a' and 'h' "
            "in 'b', and 2 more",
        ),
    ],
)  # fmt: skip
def test_numbers_that_stand_for_other_classes_are_refused(first, second, message):
    with pytest.raises(BadInput) as error:
        compared(first, second)
    assert error.value.message == f"The same numbers stand for other classes: {message}."
    assert error.value.remedy == "Do so."


def test_the_pair_is_told():
    first, second = entries(_2="forest")[0], entries(_2="wood")[0]
    told = "Class 2 is 'forest' in 'a' and 'wood' in this training: they are taken for one class, 'forest'."
    assert taken_for_one((first, "'a'"), second, "this training") == told
