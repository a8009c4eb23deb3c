"""Class rasters from label images whose classes are told by colour (white = impervious, blue = building, ...).

One look-up in a table of all 16,777,216 colours per pixel: time does not depend on the number of classes, and memory
not on the raster's size.
"""

from __future__ import annotations

from collections import Counter
from typing import Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rasterio

from ..tasks.classtable import ClassEntry, Legend, nomenclature, read_legend
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobfiles import check_inputs_stay
from ..tasks.jobs import LabelsFromColours, LabelsFromColoursResult
from .maps import RasterFiles, raster_path
from .products import products_of
from .rasters import Array, RasterReader, reading
from .rasterwriting import tile_windows

# Holds a row of the windows of a wide image that is stored in strips; GDAL's own choice grows with the machine.
_CACHE_BYTES = 128 << 20
# Colours of no class that are kept apart while counting; a photograph has more than anyone would read.
_MOST_COLOURS = 10_000
_SHOWN_COLOURS = 5
_NO_CLASS = -1


def labels_from_colours(job: LabelsFromColours, context: Context) -> LabelsFromColoursResult:
    """Write the class raster of a label image: every pixel takes the class of its colour.

    A pixel belongs to the class of the nearest colour, where no channel differs by more than TOLERANCE; one that is
    equally near to two classes belongs to neither. Pixels without a class are no-data and counted.

    Raises:
        BadInput: no class table, two classes of one colour, no pixel with a colour of the table, an unknown colour with
            UNKNOWN error, a file cannot be read or written, or OUTPUT would overwrite what the job reads.
        DiskFull: no room left.
    """
    classes = _class_table(job.legend)
    output = raster_path(job.output)
    # The check of every job's outputs does not know of the suffix that a raster gets here.
    check_inputs_stay(job, {"OUTPUT": output})
    products = products_of(classes, [output])
    table = _colour_index(classes, job.tolerance)
    counts = np.zeros(len(classes), np.int64)
    unknown: Counter[int] = Counter()
    unknown_pixels = 0
    with reading(job.source, cache=_CACHE_BYTES) as reader:
        palette = _palette(job.source.path, reader, context)
        rasters = RasterFiles(products, reader.grid, classes, {})
        with rasters:
            with rasters.create(0):
                windows = list(tile_windows(reader.grid, 3))
                for done, window in enumerate(windows):
                    context.check()
                    # A no-data number of a coloured image is a colour, which all bands have to hold: 0 is no black.
                    raw, valid = reader.read(*window, rule="all")
                    keys, inside = _keys(raw[:3], valid[:3], palette)
                    chosen = np.where(keys >= 0, table[np.maximum(keys, 0)], _NO_CLASS)
                    chosen[~inside] = _NO_CLASS
                    strange = inside & (chosen == _NO_CLASS)
                    if strange.any():
                        if job.unknown == "error":
                            raise _unknown_colour(reader.name, keys, strange, *window[:2])
                        unknown_pixels += int(np.count_nonzero(strange))
                        _count_colours(unknown, keys[strange])
                    counts += np.bincount(chosen[chosen >= 0], minlength=len(classes))
                    # No class is the last place.
                    rasters.write(0, window, rasters.class_values(chosen)[None])
                    context.progress(done + 1, len(windows), "Reading colours", "windows")
                if not counts.any():
                    raise _no_class(reader.name, unknown, unknown_pixels)
                _tell(classes, counts, unknown, unknown_pixels, context)
            rasters.finish({entry.value: int(count) for entry, count in zip(classes, counts)}, context.check)
    nodata = int(products[0].nodata)
    return LabelsFromColoursResult(output, unknown_pixels, nodata, classes, warnings=tuple(context.warnings))


def _class_table(legend: Legend) -> Tuple[ClassEntry, ...]:
    """Return the classes of the LEGEND, else of the NOMENCLATURE.

    Raises:
        BadInput: there is neither, or two classes have one colour.
    """
    classes = read_legend(legend.path) if legend.path else nomenclature(legend.nomenclature)
    if not classes:
        raise BadInput(
            "There is no class table that says what the colours mean.",
            "Give a LEGEND file with value, name and colour of each class, or choose a NOMENCLATURE.",
        )
    seen: Dict[str, ClassEntry] = {}
    for entry in classes:
        other = seen.setdefault(entry.colour.lower(), entry)
        if other is not entry:
            raise BadInput(
                f"The classes {other.value} ({other.name}) and {entry.value} ({entry.name}) have the same colour "
                f"{entry.colour}.",
                "Give each class a colour of its own.",
            )
    return classes


def _colour_index(classes: Tuple[ClassEntry, ...], tolerance: int) -> npt.NDArray[np.int16]:
    """Return the position of the class of every colour, ``(2 ** 24,)`` by ``red * 65536 + green * 256 + blue``.

    -1 where no class is near, or two are equally near.
    """
    index = np.full((256, 256, 256), _NO_CLASS, np.int16)
    nearest = np.full((256, 256, 256), np.iinfo(np.int32).max, np.int32) if tolerance else None
    for position, entry in enumerate(classes):
        red, green, blue = (int(entry.colour[start : start + 2], 16) for start in (1, 3, 5))
        if nearest is None:
            index[red, green, blue] = position
            continue
        greens, blues = (np.arange(max(0, c - tolerance), min(255, c + tolerance) + 1) for c in (green, blue))
        plane = ((greens - green) ** 2)[:, None] + (blues - blue) ** 2
        part = slice(greens[0], greens[-1] + 1), slice(blues[0], blues[-1] + 1)
        # Plane by plane, so that a large tolerance needs no further cube of numbers.
        for level in range(max(0, red - tolerance), min(255, red + tolerance) + 1):
            distance = (plane + (level - red) ** 2).astype(np.int32)
            before, chosen = nearest[level][part], index[level][part]
            chosen[distance == before] = _NO_CLASS
            chosen[distance < before] = position
            np.minimum(before, distance, out=before)
    return index.reshape(-1)


def _palette(path: str, reader: RasterReader, context: Context) -> Optional[Array]:
    """Return the colours of a paletted image's values ``(N, 3)``; None for one with red, green and blue bands.

    Raises:
        BadInput: the image has neither.
    """
    if len(reader.bands) >= 3:
        if len(reader.bands) > 3:
            context.log(f"'{reader.name}' has {len(reader.bands)} bands: the first three are red, green and blue.")
        return None
    with rasterio.open(path) as dataset:
        try:
            entries: Dict[int, Tuple[int, ...]] = dataset.colormap(1)
        except ValueError as error:
            raise BadInput(
                f"'{reader.name}' has {len(reader.bands)} band(s) and no colour table, so no colours.",
                "Choose an image with red, green and blue bands, or one with a colour table.",
            ) from error
    colours = np.full((max(entries) + 1, 3), -1, np.int32)
    for value, colour in entries.items():
        colours[value] = colour[:3]
    return colours


def _keys(raw: Array, valid: Array, palette: Optional[Array]) -> Tuple[Array, Array]:
    """Return ``red * 65536 + green * 256 + blue`` of every pixel ``(h, w)``, -1 for what is no colour, and validity."""
    if palette is not None:
        inside = valid[0]
        known = inside & (raw[0] >= 0) & (raw[0] < len(palette))
        bands = palette[np.where(known, raw[0], 0).astype(np.int64)].transpose(2, 0, 1)
        fits = known & (bands[0] >= 0)
    else:
        inside = valid.all(axis=0)
        bands = raw
        fits = inside.copy()
        if raw.dtype != np.uint8:
            fits &= ((raw >= 0) & (raw <= 255)).all(axis=0)
            if raw.dtype.kind == "f":
                fits &= (raw == np.floor(raw)).all(axis=0)
            bands = np.where(fits, raw, 0)
    red, green, blue = bands.astype(np.int32)
    return np.where(fits, red << 16 | green << 8 | blue, -1), inside


def _count_colours(unknown: Counter[int], keys: Array) -> None:
    """Count colours of no class; when there are too many, those seen first are the ones told."""
    colours, numbers = np.unique(keys, return_counts=True)
    for colour, number in zip(colours.tolist(), numbers.tolist()):
        if colour in unknown or len(unknown) < _MOST_COLOURS:
            unknown[colour] += number


def _hex(key: int) -> str:
    return f"#{key:06x}" if key >= 0 else "no colour of 8 bits"


def _listed(unknown: Counter[int]) -> str:
    ranked = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_COLOURS]
    return ", ".join(f"{_hex(key)} ({number})" for key, number in ranked)


def _unknown_colour(name: str, keys: Array, strange: Array, row: int, col: int) -> BadInput:
    place = np.argwhere(strange)[0]
    return BadInput(
        f"The pixel in row {row + place[0]}, column {col + place[1]} of '{name}' has the colour "
        f"{_hex(int(keys[tuple(place)]))}, which is no class.",
        "Add the colour to the LEGEND, raise TOLERANCE (images saved as JPEG blur colours), or choose UNKNOWN ignore.",
    )


def _no_class(name: str, unknown: Counter[int], pixels: int) -> BadInput:
    if pixels == 0:
        return BadInput(f"'{name}' holds no valid pixel.", "Check its no-data value or alpha band.")
    return BadInput(
        f"No pixel of '{name}' has a colour of the class table; its commonest colours are {_listed(unknown)}.",
        "Choose the LEGEND or NOMENCLATURE that the image was painted with.",
    )


def _tell(
    classes: Tuple[ClassEntry, ...], counts: Array, unknown: Counter[int], unknown_pixels: int, context: Context
) -> None:
    for entry, count in zip(classes, counts):
        context.log(f"Class {entry.value} ({entry.name}, {entry.colour}): {count} pixels.")
    if unknown_pixels:
        share = unknown_pixels / (unknown_pixels + int(counts.sum()))
        context.warn(
            f"{unknown_pixels} pixels ({share:.2%}) have a colour of no class and are no-data; the commonest: "
            f"{_listed(unknown)}. Add them to the LEGEND, or raise TOLERANCE."
        )
