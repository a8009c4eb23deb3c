"""How many pixels each class and each feature of a layer covers, in the XML file of OTB's PolygonClassStatistics."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree  # nosec B405 - entity declarations are refused, see read_statistics
from pathlib import Path
from typing import Dict, Mapping
from xml.sax.saxutils import escape  # nosec B406 - writes, parses nothing

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import PolygonStatistics, PolygonStatisticsResult
from .classes import class_texts, feature_classes
from .featurepixels import extent_text, nothing_labelled, pixel_chunks
from .rasters import reading
from .textfiles import write_text
from .vectors import on_grid, read_layer

_PER_CLASS, _PER_FEATURE = "samplesPerClass", "samplesPerVector"
# Lines of the file that are joined at a time.
_LINES = 10_000


def polygon_statistics(job: PolygonStatistics, context: Context) -> PolygonStatisticsResult:
    """Count the pixels of every class and feature on a raster's grid, as the reference does.

    Pixels that several features share count for each of them; a class or feature on the raster without a pixel has 0,
    one outside the raster is not listed. Classes are named by the text of their field.

    Raises:
        BadInput: the layer is empty or has no such field, no pixel is covered, the mask lies on another grid, or a file
            cannot be read or written.
        DiskFull: no room left.
    """
    with reading(job.raster) as reader:
        layer = read_layer(job.vector, context)
        extent = extent_text(layer)
        layer = on_grid(layer, reader.grid, reader.name, context, consume=True)
        classes = feature_classes(layer, job.field, context)
        texts = class_texts(layer, job.field, classes)
        per_class: Dict[str, int] = {}
        per_feature: Dict[str, int] = {}
        for chunk in pixel_chunks(layer, classes, reader.grid, job.mask, context):
            inside = ~chunk.outside
            features = layer.frame.index[chunk.positions[inside]]
            ids = classes.ids[chunk.positions[inside]]
            for feature, value, count in zip(features.tolist(), ids.tolist(), chunk.counts[inside].tolist()):
                text = texts[value]
                per_class[text] = per_class.get(text, 0) + count
                per_feature[str(feature)] = count
        if not any(per_class.values()):
            raise nothing_labelled(layer.name, extent, reader, masked=job.mask is not None)
    del layer  # Of a million features large; the text that is written is, too.
    for text, count in sorted(per_class.items()):
        context.log(f"Class {text}: {count} pixels.")
    path = write_statistics(job.output, per_class, per_feature)
    return PolygonStatisticsResult(path, dict(sorted(per_class.items())), warnings=tuple(context.warnings))


def write_statistics(path: str, per_class: Mapping[str, int], per_feature: Mapping[str, int]) -> str:
    """Write the reference's XML (a missing suffix ``.xml`` is added) under a temporary name; returns its real path.

    Keys are sorted as texts, as the reference does: 1, 10, 2.

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    # Text by text: a tree of the elements of a million features would take a gigabyte, and a list of lines much, too.
    lines = ['<?xml version="1.0" ?>', "<GeneralStatistics>"]
    for name, counts in ((_PER_CLASS, per_class), (_PER_FEATURE, per_feature)):
        lines.append(f'    <Statistic name="{name}">')
        keys = sorted(counts)
        for start in range(0, len(keys), _LINES):
            some = keys[start : start + _LINES]
            lines.append(
                "\n".join(f'        <StatisticMap key={_quoted(key)} value="{counts[key]}" />' for key in some)
            )
        lines.append("    </Statistic>")
    text = "\n".join([*lines, "</GeneralStatistics>", ""])
    return write_text(path, ".xml", text)


def _quoted(text: str) -> str:
    """Return the text of an attribute as ElementTree writes it."""
    return '"' + escape(text, {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#09;"}) + '"'


def read_statistics(path: str) -> Dict[str, int]:
    """Read the pixels per class of such a file: the class's text -> pixels.

    Raises:
        BadInput: the file cannot be read, or is of another form.
    """
    form = f"'{Path(path).name}' is no file of polygon statistics"
    remedy = "Make it with 'Count the pixels of polygons', or with the Orfeo ToolBox's PolygonClassStatistics."
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"'{path}' cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{form}: it is not UTF-8.", remedy) from error
    if "<!ENTITY" in text:
        raise BadInput(f"'{Path(path).name}' declares XML entities, which are refused.", remedy)
    try:
        root = ElementTree.fromstring(text)  # nosec B314 - entity declarations are refused above
        block = root.find(f"Statistic[@name='{_PER_CLASS}']")
        if block is None:
            raise BadInput(f"{form}: it has no '{_PER_CLASS}'.", remedy)
        return {entry.attrib["key"]: int(entry.attrib["value"]) for entry in block.iter("StatisticMap")}
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise BadInput(f"{form}: {error}.", remedy) from error
