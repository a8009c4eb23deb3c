"""What is written into and beside a class raster, so that every program shows its classes by name and colour.

A colour table inside the file, category names and a raster attribute table in ``.aux.xml`` (GDAL's own sidecar), and a
``.qml`` style that QGIS loads by itself. Each is enough for some program, and none for all of them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree  # nosec B405 - sidecars are parsed with entity declarations refused
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import rasterio
from rasterio.errors import RasterioError

from ..tasks.classtable import ClassEntry, palette_colour, raster_qml, read_qml
from ..tasks.errors import BadInput
from .textfiles import write_text

Colour = Tuple[int, int, int, int]

# Category names are a list from value 0 on, colour tables of 16-bit files always have 65,536 entries, which QGIS
# lists one by one: beyond this value attribute table and style carry the legend alone.
_LARGEST_TABLE_VALUE = 255

# GDAL's GDALRATFieldType and GDALRATFieldUsage by name (gdal.h).
_INTEGER, _STRING = 0, 2
_PIXEL_COUNT, _NAME, _MIN_MAX, _RED, _GREEN, _BLUE = 1, 2, 5, 6, 7, 8


def colour_table(classes: Sequence[ClassEntry], dtype: str) -> Optional[Dict[int, Colour]]:
    """Return value -> (red, green, blue, alpha) for a GeoTIFF's colour table; None where the type allows none.

    It has to be written before the first pixel.
    """
    if dtype != "uint8":
        return None
    return {entry.value: (*_rgb(entry.colour), 255) for entry in classes}


def write_sidecars(path: str, classes: Sequence[ClassEntry], counts: Mapping[int, int]) -> None:
    """Write ``<name>.tif.aux.xml`` and ``<name>.qml`` for a class raster that is complete and closed.

    What GDAL itself put into the ``.aux.xml`` stays.

    Args:
        path: the raster.
        classes: its classes.
        counts: class value -> pixels.

    Raises:
        DiskFull: no room left.
        BadInput: they cannot be written.
    """
    write_text(aux_path(path), ".xml", _merged_aux(path, classes, counts))
    write_text(qml_path(path), ".qml", raster_qml(classes))


# Cividis, light where the model is sure: perceptually even, and the same with every kind of colour vision.
_SURENESS = ("#00204d", "#414d6b", "#7c7b78", "#bcae6c", "#ffea46")


def write_ramp(path: str, kind: str, band: int = 1) -> None:
    """Write ``<name>.qml`` for a raster of probabilities, confidence, entropy or margin: 0 to 1 in one even ramp.

    Args:
        path: the raster.
        kind: see `products`.
        band: the one that is shown, counted from 1.

    Raises:
        DiskFull: no room left.
        BadInput: it cannot be written.
    """
    colours = _SURENESS[::-1] if kind == "entropy" else _SURENESS
    root = ElementTree.Element("qgis", {"version": "3.22.0", "styleCategories": "AllStyleCategories"})
    renderer = ElementTree.SubElement(
        ElementTree.SubElement(root, "pipe"), "rasterrenderer",
        {
            "type": "singlebandpseudocolor", "band": str(band), "opacity": "1", "alphaBand": "-1", "nodataColor": "",
            "classificationMin": "0", "classificationMax": "1",
        },
    )  # fmt: skip
    ElementTree.SubElement(renderer, "rasterTransparency")
    shader = ElementTree.SubElement(
        ElementTree.SubElement(renderer, "rastershader"), "colorrampshader",
        {"colorRampType": "INTERPOLATED", "classificationMode": "1", "minimumValue": "0", "maximumValue": "1"},
    )  # fmt: skip
    for number, colour in enumerate(colours):
        value = f"{number / (len(colours) - 1):g}"
        ElementTree.SubElement(shader, "item", {"value": value, "label": value, "color": colour, "alpha": "255"})
    write_text(
        qml_path(path),
        ".qml",
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ElementTree.tostring(root, encoding="unicode"),
    )


def aux_path(path: str) -> str:
    """Return the name of GDAL's sidecar of a raster."""
    return path + ".aux.xml"


def qml_path(path: str) -> str:
    """Return the name of the style that QGIS loads with a raster."""
    return str(Path(path).with_suffix(".qml"))


def _rgb(colour: str) -> Tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _merged_aux(path: str, classes: Sequence[ClassEntry], counts: Mapping[int, int]) -> str:
    root = _parsed(aux_path(path))
    if root is None:
        root = ElementTree.Element("PAMDataset")
    band = next((b for b in root.iter("PAMRasterBand") if b.get("band") == "1"), None)
    if band is None:
        band = ElementTree.SubElement(root, "PAMRasterBand", {"band": "1"})
    for tag in ("CategoryNames", "GDALRasterAttributeTable"):
        for old in band.findall(tag):
            band.remove(old)
    if all(0 <= entry.value <= _LARGEST_TABLE_VALUE for entry in classes):
        band.append(_category_names(classes))
    band.append(_attribute_table(classes, counts))
    return ElementTree.tostring(root, encoding="unicode")


def _category_names(classes: Sequence[ClassEntry]) -> ElementTree.Element:
    names = {entry.value: entry.name for entry in classes}
    element = ElementTree.Element("CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(element, "Category").text = names.get(value, "")
    return element


def _attribute_table(classes: Sequence[ClassEntry], counts: Mapping[int, int]) -> ElementTree.Element:
    columns = [
        ("Value", _INTEGER, _MIN_MAX), ("Count", _INTEGER, _PIXEL_COUNT), ("Class", _STRING, _NAME),
        ("Red", _INTEGER, _RED), ("Green", _INTEGER, _GREEN), ("Blue", _INTEGER, _BLUE),
    ]  # fmt: skip
    table = ElementTree.Element("GDALRasterAttributeTable", {"tableType": "thematic"})
    for index, (name, kind, usage) in enumerate(columns):
        definition = ElementTree.SubElement(table, "FieldDefn", {"index": str(index)})
        for tag, value in (("Name", name), ("Type", str(kind)), ("Usage", str(usage))):
            ElementTree.SubElement(definition, tag).text = value
    for index, entry in enumerate(classes):
        row = ElementTree.SubElement(table, "Row", {"index": str(index)})
        # The table's integers have 32 bits: a larger count would be read back as another number.
        count = min(counts.get(entry.value, 0), 2**31 - 1)
        for cell in (entry.value, count, entry.name, *_rgb(entry.colour)):
            ElementTree.SubElement(row, "F").text = str(cell)
    return table


def _parsed(path: str) -> Optional[ElementTree.Element]:
    """Return the root of a sidecar; None where there is none, or one that is no XML of GDAL's."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if "<!ENTITY" in text:
        return None
    try:
        return ElementTree.fromstring(text)  # nosec B314 - entity declarations are refused above
    except ElementTree.ParseError:
        return None


def read_map_legend(path: str) -> Tuple[ClassEntry, ...]:
    """Return the classes of a class raster from its ``.qml``, its attribute table, or its category names and colours.

    Empty where it carries none of them.
    """
    style = qml_path(path)
    if Path(style).is_file():
        try:
            entries = read_qml(style)
        except (BadInput, ValueError, KeyError, OSError, ElementTree.ParseError):
            entries = []  # a style of another kind (grey, RGB) or of the user's own making is no error here
        if entries:
            return _ascending(entries)
    root = _parsed(aux_path(path))
    if root is not None:
        table = next(root.iter("GDALRasterAttributeTable"), None)
        entries = [] if table is None else _read_attribute_table(table)
        if entries:
            return _ascending(entries)
    return _ascending(_read_categories(path, root))


def _ascending(entries: Sequence[ClassEntry]) -> Tuple[ClassEntry, ...]:
    by_value = {entry.value: entry for entry in entries}
    return tuple(by_value[value] for value in sorted(by_value))


def _read_attribute_table(table: ElementTree.Element) -> List[ClassEntry]:
    usages = {int(d.findtext("Usage") or -1): int(d.get("index") or 0) for d in table.iter("FieldDefn")}
    if _MIN_MAX not in usages or _NAME not in usages:
        return []
    entries = []
    for number, row in enumerate(table.iter("Row")):
        cells = [cell.text or "" for cell in row.iter("F")]
        colour = palette_colour(number)
        if {_RED, _GREEN, _BLUE} <= set(usages):
            colour = "#" + "".join(f"{int(cells[usages[usage]]):02x}" for usage in (_RED, _GREEN, _BLUE))
        entries.append(ClassEntry(int(float(cells[usages[_MIN_MAX]])), cells[usages[_NAME]], colour))
    return entries


def _read_categories(path: str, root: Optional[ElementTree.Element]) -> List[ClassEntry]:
    element = None if root is None else next(root.iter("CategoryNames"), None)
    names = [] if element is None else [item.text or "" for item in element.iter("Category")]
    if not any(names):
        return []
    colours: Mapping[int, Any] = {}
    try:
        with rasterio.open(path) as dataset:
            colours = dataset.colormap(1)
    except (RasterioError, ValueError):
        colours = {}  # rasterio raises where a band has no colour table
    return [
        ClassEntry(value, name, "#{:02x}{:02x}{:02x}".format(*colours[value][:3]))
        if value in colours
        else ClassEntry(value, name, palette_colour(value))
        for value, name in enumerate(names)
        if name
    ]
