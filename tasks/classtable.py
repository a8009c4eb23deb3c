"""Class tables: the value, name and colour of every class, and the files that they are read from.

Standard library only: both sides of the seam use it. Names and colours are resolved in the order of precedence
LEGEND file, NOMENCLATURE, the layer's categorised renderer, a name field beside the class field, a colour-blind-safe
palette, of which well-known names of land cover get their conventional colours (`resolve`).
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import unicodedata
import xml.etree.ElementTree as ElementTree  # nosec B405 - legends are the user's own files, see read_qml
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .conventions import conventional_colours
from .errors import BadInput

STYLES = Path(__file__).resolve().parent.parent / "styles"

# Paul Tol's "muted" and "bright" qualitative schemes (https://personal.sron.nl/~pault/), told apart under the common
# forms of colour blindness; beyond their length the hue is spread by the golden ratio.
PALETTE = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499",
    "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb",
)  # fmt: skip

_COLOUR = re.compile(r"^#[0-9a-fA-F]{6}$")


@dataclass(frozen=True)
class ClassEntry:
    """One class: the pixel value, the name and the colour as ``#rrggbb``."""

    value: int
    name: str
    colour: str

    def __post_init__(self) -> None:
        if not _COLOUR.match(self.colour):
            raise BadInput(
                f"The colour '{self.colour}' of class {self.value} is not of the form #rrggbb.",
                "Write it as # and six hexadecimal digits, e.g. #7fbcfc.",
            )


@dataclass(frozen=True)
class Legend:
    """Where class names and colours come from (parameters LEGEND and NOMENCLATURE, and the layer's own style)."""

    path: str = ""
    nomenclature: str = "none"
    layer_classes: Tuple[ClassEntry, ...] = ()


NOMENCLATURES = ("none", "tokyo", "worldcover", "corine1", "isprs", "oso", "dynamicworld")


def nomenclature(name: str) -> Tuple[ClassEntry, ...]:
    """Return the class table of a bundled nomenclature; ``none`` gives an empty one.

    Raises:
        BadInput: the name is unknown; lists the valid ones.
    """
    if name not in NOMENCLATURES:
        raise BadInput(f"There is no nomenclature '{name}'.", f"Valid names: {', '.join(NOMENCLATURES)}.")
    return () if name == "none" else read_legend(str(STYLES / f"{name}.json"))


def read_legend(path: str) -> Tuple[ClassEntry, ...]:
    """Read a class table from a ``.qml`` style, a ``.json`` or a ``.csv`` file (columns value, name, colour).

    Raises:
        BadInput: the file cannot be read, has another form or no class, or lists a value twice.
    """
    readers = {".qml": read_qml, ".json": _read_json, ".csv": _read_csv}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise BadInput(f"The legend '{path}' is of no known form.", "Give a .qml, .json or .csv file.")
    try:
        entries = reader(path)
    except OSError as error:
        raise BadInput(f"The legend '{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, csv.Error, ElementTree.ParseError) as error:
        raise BadInput(
            f"The legend '{path}' cannot be understood: {error!r}.",
            "A .json or .csv legend lists value, name and colour (#rrggbb) of each class.",
        ) from error
    if not entries:
        raise BadInput(f"The legend '{path}' holds no class.", "Give a style with one symbol or entry per class value.")
    doubled = doubled_value(entries)
    if doubled is not None:
        raise BadInput(f"The legend '{path}' lists the value {doubled} twice.", "Keep one entry per value.")
    return tuple(sorted(entries, key=lambda entry: entry.value))


def doubled_value(entries: Iterable[ClassEntry]) -> Optional[int]:
    """Return the first value that several classes have; None where each has its own."""
    return next((value for value, count in Counter(entry.value for entry in entries).items() if count > 1), None)


def _read_json(path: str) -> List[ClassEntry]:
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    rows = data["classes"] if isinstance(data, Mapping) else data
    return [ClassEntry(int(row["value"]), str(row["name"]), str(row["colour"]).lower()) for row in rows]


def _read_csv(path: str) -> List[ClassEntry]:
    text = Path(path).read_text(encoding="utf-8-sig")
    dialect = csv.Sniffer().sniff(text.splitlines()[0], delimiters=",;\t") if text.strip() else csv.excel
    rows = csv.DictReader(text.splitlines(), dialect=dialect)
    return [
        ClassEntry(int(row["value"]), row["name"].strip(), (row.get("colour") or row["color"]).strip().lower())
        for row in rows
    ]


def read_qml(path: str) -> List[ClassEntry]:
    """Read the classes of a QGIS style: paletted or exact pseudocolour rasters, categorised vectors.

    A legend is a file of the user's own choice, parsed with entity declarations refused.
    """
    text = Path(path).read_text(encoding="utf-8")
    if "<!ENTITY" in text:
        raise BadInput(f"The legend '{path}' declares XML entities.", "Save the style again from QGIS.")
    root = ElementTree.fromstring(text)  # nosec B314 - entity declarations are refused above
    entries = [
        ClassEntry(
            int(float(item.attrib["value"])), item.get("label") or item.attrib["value"], item.attrib["color"][:7]
        )
        for tag in ("paletteEntry", "item")
        for item in root.iter(tag)
        if "color" in item.attrib and "value" in item.attrib
    ]
    symbols = {symbol.get("name"): _symbol_colour(symbol) for symbol in root.iter("symbol")}
    for number, category in enumerate(root.iter("category")):
        value = category.get("value", "")
        if value == "" or category.get("type") == "NULL":
            continue
        colour = symbols.get(category.get("symbol")) or palette_colour(number)
        # A category of a text field has no number of its own: it takes its place in the list, counted from 1.
        is_number = re.fullmatch(r"-?\d+(\.0*)?", value) is not None
        entries.append(
            ClassEntry(int(float(value)) if is_number else number + 1, category.get("label") or value, colour)
        )
    return entries


def _symbol_colour(symbol: ElementTree.Element) -> str:
    """Return the fill colour of a symbol in either of QGIS's notations (<prop k v> up to 3.24, <Option name value>)."""
    for element in list(symbol.iter("prop")) + list(symbol.iter("Option")):
        if (element.get("k") or element.get("name")) == "color":
            parts = (element.get("v") or element.get("value") or "").split(",")
            if len(parts) >= 3:
                return "#{:02x}{:02x}{:02x}".format(*(int(float(part)) for part in parts[:3]))
    return ""


def palette_colour(number: int) -> str:
    """Return the palette's colour for the class with this 0-based position."""
    if number < len(PALETTE):
        return PALETTE[number]
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb((number * 0.618033988749895) % 1.0, 0.65, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def resolve(
    values: Iterable[int], legend: Legend = Legend(), names: Optional[Mapping[int, str]] = None
) -> Tuple[ClassEntry, ...]:
    """Return one entry per class value, ascending; each from the first source that knows the value.

    Args:
        values: the class values that occur in the data.
        legend: LEGEND file, NOMENCLATURE and the layer's renderer, in this order.
        names: names from a name field beside the class field; they name what no legend knows.
    """
    sources: List[Dict[int, ClassEntry]] = []
    if legend.path:
        sources.append({entry.value: entry for entry in read_legend(legend.path)})
    sources.append({entry.value: entry for entry in nomenclature(legend.nomenclature)})
    sources.append({entry.value: entry for entry in legend.layer_classes})
    wanted = sorted(set(int(v) for v in values))
    known = {value: next((source[value] for source in sources if value in source), None) for value in wanted}
    named = {value: (names or {}).get(value) or f"Class {value}" for value in wanted}
    colours = _free_colours(named, {value: entry.colour for value, entry in known.items() if entry is not None})
    return tuple(known[value] or ClassEntry(value, named[value], colours[value]) for value in wanted)


def _free_colours(named: Mapping[int, str], given: Mapping[int, str]) -> Dict[int, str]:
    """Return the colours of the classes that no legend gives one: conventional ones first, the palette's for the rest.

    Args:
        named: class value -> name, ascending.
        given: class value -> the legend's colour.
    """
    colours = dict(given)
    for value, name in named.items():
        free = [colour for colour in conventional_colours(name) if colour not in colours.values()]
        if value not in colours and free:
            colours[value] = free[0]
    for number, value in enumerate(named):
        if value not in colours:
            own = palette_colour(number)
            others = (palette_colour(other) for other in itertools.count())
            taken = set(colours.values())
            colours[value] = own if own not in taken else next(colour for colour in others if colour not in taken)
    return colours


def class_ids_of_names(names: Iterable[str], legend: Legend = Legend()) -> Dict[str, int]:
    """Give every class name an id, for class fields that hold text.

    A name that a legend knows takes the legend's value; the others are numbered in alphabetical order from 1, over the
    values that are free.
    """
    known: Dict[str, int] = {}
    for entries in (
        legend.layer_classes,
        nomenclature(legend.nomenclature),
        read_legend(legend.path) if legend.path else (),
    ):
        known.update({entry.name: entry.value for entry in entries})
    wanted = sorted(set(names))
    ids = {name: known[name] for name in wanted if name in known}
    free = (value for value in range(1, len(wanted) + len(known) + 2) if value not in set(known.values()))
    for name in wanted:
        if name not in ids:
            ids[name] = next(free)
    return ids


# A name that says nothing but the value; that of a class which no legend or field names.
_NUMBER_NAME = re.compile(r"(?:class )?([+-]?\d{1,18})")
_NAMED = 3


def other_names(
    known: Mapping[int, Tuple[ClassEntry, str]], table: Sequence[ClassEntry], file: str, remedy: str
) -> List[ClassEntry]:
    """Return the classes of a table that another one, which is to mean the same by its values, calls otherwise.

    Case, spaces and the like do not count (`comparable_name`), and a name like "Class 3" of class 3 goes with any.

    Args:
        known: class value -> class of the other table, and the file that it comes from.
        table: the classes.
        file: where they come from, as messages write it.
        remedy: what to do where the values do not mean the same.

    Raises:
        BadInput: a name stands for another value than in the other table, or no name is the same.
    """
    places, own = _values_of_names([entry for entry, _ in known.values()]), _values_of_names(table)
    wrong = []
    for entry in table:
        there = places.get(_plain_name(entry), set())
        if there and there.isdisjoint(own[_plain_name(entry)]):
            value = min(there)
            wrong.append(f"'{entry.name}' is class {entry.value} in {file} and class {value} in {known[value][1]}")
    both = [(entry, *known[entry.value]) for entry in table if entry.value in known]
    both = [each for each in both if _plain_name(each[0]) and _plain_name(each[1])]
    others = [each for each in both if _plain_name(each[0]) != _plain_name(each[1])]
    if not wrong and others and len(others) == len(both):
        wrong = [
            f"class {entry.value} is '{theirs.name}' in {origin} and '{entry.name}' in {file}"
            for entry, theirs, origin in others
        ]
    if wrong:
        more = f", and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise BadInput(f"The same numbers stand for other classes: {', '.join(wrong[:_NAMED])}{more}.", remedy)
    return [entry for entry, _, _ in others]


def comparable_name(name: str) -> str:
    """Return a name without what is written in several ways: case, spaces, _ and - for them, signs with an accent."""
    # Some programs write an accent as a sign of its own.
    return " ".join(re.sub(r"[_-]", " ", unicodedata.normalize("NFKC", name)).split()).casefold()


def taken_for_one(known: Tuple[ClassEntry, str], entry: ClassEntry, file: str) -> str:
    """Return the sentence that tells of a class that two files call otherwise, see `other_names`."""
    return (
        f"Class {entry.value} is '{known[0].name}' in {known[1]} and '{entry.name}' in {file}: they are taken for one "
        f"class, '{known[0].name}'."
    )


def names_nothing(entry: ClassEntry) -> bool:
    """Tell whether a class has no name but its value."""
    return not _plain_name(entry)


def _plain_name(entry: ClassEntry) -> str:
    """Return a name for comparing; "" where it says nothing but the value."""
    number = _NUMBER_NAME.fullmatch(" ".join(entry.name.split()).casefold())
    return "" if number and int(number[1]) == entry.value else comparable_name(entry.name)


def _values_of_names(table: Iterable[ClassEntry]) -> Dict[str, Set[int]]:
    """Return comparable name -> the values that it stands for, without names that say nothing."""
    values: Dict[str, Set[int]] = {}
    for entry in table:
        if not names_nothing(entry):
            values.setdefault(_plain_name(entry), set()).add(entry.value)
    return values


def raster_qml(classes: Iterable[ClassEntry]) -> str:
    """Return the text of a QGIS raster style with one palette entry per class (band 1)."""
    root = ElementTree.Element("qgis", {"version": "3.22.0", "styleCategories": "AllStyleCategories"})
    pipe = ElementTree.SubElement(root, "pipe")
    renderer = ElementTree.SubElement(
        pipe, "rasterrenderer", {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    )
    ElementTree.SubElement(renderer, "rasterTransparency")
    palette = ElementTree.SubElement(renderer, "colorPalette")
    for entry in classes:
        ElementTree.SubElement(
            palette,
            "paletteEntry",
            {"value": str(entry.value), "label": entry.name, "color": entry.colour, "alpha": "255"},
        )
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ElementTree.tostring(
        root, encoding="unicode"
    )
