"""Assessing a map against a reference raster, or reference points or polygons: one summed confusion matrix.

Rows are the reference, columns the map. Nothing is resampled but the reference, onto the map's grid (`rasterlabels`); a
pixel that the map leaves as no-data is left out, and counted. ERODE leaves out reference pixels with another class in a
disc of that radius, as the ISPRS benchmark scores on a reference with eroded boundaries; the numbers with them stand
beside it. Intervals come from the design of the reference (`assessmentdesign`), or there are none.
"""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import replace
from typing import Iterator, Optional, Tuple

import numpy as np
import numpy.typing as npt
import rasterio
import scipy.ndimage

from ..tasks.classtable import ClassEntry, Legend, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Assess, AssessResult, RasterSource
from . import assessmentdesign as design
from .assessmentbackground import PolygonsOnBackground
from .assessmentfeatures import nameless, pixels_of_layer, refuse_names, refuse_points, units_of
from .assessmentresult import result_of
from .assessmenttally import Array, Pixels, Tally
from .calibration import Calibration, band_classes
from .classes import feature_classes
from .crosswalks import Crosswalk, read_crosswalk
from .denselabels import BACKGROUND, DenseLabels
from .labelsources import open_labels
from .legends import read_map_legend
from .products import THRESHOLD_TAG
from .rasters import RasterReader, reading
from .trainingfield import TrainingField, training_field
from .vectors import crs_name, on_grid, read_layer

_TILE = 512
# Pixels of map and reference held at once.
_STRIP_PIXELS = 4_000_000


def assess(job: Assess, context: Context) -> AssessResult:
    """Compare a map with its reference.

    Raises:
        BadInput: an input cannot be used, map and reference do not overlap, no labelled pixel is mapped, or the
            reference does not have the DESIGN.
        DiskFull: no room left.
    """
    crosswalk = read_crosswalk(job.crosswalk, map_legend=True)
    with reading(_one_band(job.map)) as mapped:
        own = read_map_legend(job.map.path)
        layer_values = {entry.value for entry in job.legend.layer_classes}
        further = tuple(entry for entry in own if entry.value not in layer_values)
        legend = replace(job.legend, layer_classes=job.legend.layer_classes + further)
        field = _field(job, mapped, context)
        with _calibration(job, legend, mapped) as calibration:
            rest = BACKGROUND.value if job.background else None
            tally = Tally(mapped, field, calibration, job.leave_out_training, rest)
            strata = None
            if job.reference is not None:
                names = _compare_raster(job, job.reference, tally, context)
                table = (crosswalk.table if crosswalk else resolve)(tally.values(), legend)
            else:
                if job.background:
                    names, found = _compare_on_background(job, legend, crosswalk, tally, context)
                else:
                    names, found, strata = _compare_samples(job, legend, crosswalk, tally, context)
                known = {entry.value: entry for entry in found}
                table = tuple(known.get(entry.value, entry) for entry in resolve(tally.values(), legend))
        return result_of(job, table, tally, (names, strata), legend.layer_classes, context)


def _field(job: Assess, mapped: RasterReader, context: Context) -> TrainingField:
    """Return where the map's model learned.

    Raises:
        BadInput: what lies there is to be left out, and nobody knows where it is.
    """
    field = training_field(job, mapped.grid, context)
    if job.leave_out_training and not field.known:
        raise BadInput(
            f"LEAVE_OUT_TRAINING cannot leave anything out of '{mapped.name}': {'; '.join(field.unknown)}.",
            "Give the patch dataset of its model as TRAINING, or set LEAVE_OUT_TRAINING to false.",
        )
    return field


def _one_band(source: RasterSource) -> RasterSource:
    return replace(source, bands=source.bands[:1] or (1,), stack=())


@contextlib.contextmanager
def _calibration(job: Assess, legend: Legend, mapped: RasterReader) -> Iterator[Optional[Calibration]]:
    """Open the probabilities, where there are any.

    Raises:
        BadInput: they are not those of the map.
    """
    if job.probabilities is None:
        yield None
        return
    with reading(job.probabilities) as reader:
        if not reader.grid.same_as(mapped.grid):
            raise BadInput(
                f"'{reader.name}' does not lie on the grid of the map '{mapped.name}': "
                f"{reader.grid.difference_from(mapped.grid)}.",
                "Give the PROBABILITIES that 'Classify an image' wrote with the map.",
            )
        classes = band_classes(reader, legend.layer_classes, mapped.name)
        yield Calibration(reader, classes, _threshold_of(job.map.path))


def _threshold_of(path: str) -> Optional[float]:
    """Return the threshold that a map says it was made by; None where it does not say."""
    with rasterio.open(path) as dataset:
        text = dataset.tags().get(THRESHOLD_TAG, "")
    return float(text) if re.fullmatch(r"[\d.]+(e-\d+)?", text) else None


# --- comparing -------------------------------------------------------------------------------------------------------


def _compare_raster(job: Assess, source: RasterSource, tally: Tally, context: Context) -> str:
    """Count a reference raster; return its name."""
    with open_labels(
        source, None, "", tally.mapped.grid, tally.mapped.name, context, crosswalk=job.crosswalk, map_legend=True
    ) as reference:
        _compare_windows(job, reference, tally, context)
        return reference.name


def _compare_on_background(
    job: Assess, legend: Legend, crosswalk: Optional[Crosswalk], tally: Tally, context: Context
) -> Tuple[str, Tuple[ClassEntry, ...]]:
    """Count reference polygons and the background around them; return the layer's name and its classes."""
    if job.samples is None:
        raise ValueError("a job with a background has reference samples")
    layer = read_layer(job.samples, context)
    if job.field and nameless(legend):
        refuse_names(layer, job.field, tally.mapped.name, crosswalk)
    grid, name = tally.mapped.grid, tally.mapped.name
    with PolygonsOnBackground(layer, job.field, grid, name, context, legend, crosswalk) as reference:
        _compare_windows(job, reference, tally, context)
        return reference.name, reference.classes


def _compare_windows(job: Assess, reference: DenseLabels, tally: Tally, context: Context) -> None:
    """Count a reference that may cover the whole map, by window."""
    grid, margin = tally.mapped.grid, job.erode
    if job.block_size:
        design.check_blocks(grid, job.block_size)
    done = 0
    for top in range(0, grid.height, _TILE):
        for left in range(0, grid.width, _TILE):
            context.check()
            height, width = min(_TILE, grid.height - top), min(_TILE, grid.width - left)
            around, known = reference.read(top - margin, left - margin, height + 2 * margin, width + 2 * margin)
            inner = slice(margin, margin + height), slice(margin, margin + width)
            labels, labelled = around[inner], known[inner]
            done += height * width
            context.progress(done, grid.height * grid.width, "Comparing", "pixels")
            if not labelled.any():
                continue
            near = near_another_class(around, known, margin)[inner][labelled] if margin else None
            rows, cols = np.nonzero(labelled)
            rows, cols, nothing = rows + top, cols + left, np.full(len(rows), -1)
            blocks = design.blocks_of(rows, cols, grid.width, job.block_size) if job.block_size else nothing
            tally.add(Pixels(rows, cols, labels[labelled], nothing, blocks), (top, left, height, width), near)
    if not tally.pairs:
        raise _nothing(reference.name, tally)
    reference.finish(context)


def near_another_class(labels: Array, known: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Return which labelled pixels have a pixel of another class at most ``radius`` pixels away (a disc), ``(H, W)``.

    Pixels without a label are of no class: the ISPRS benchmark erodes the boundaries between classes of a reference
    that covers all ground. Beyond the edge of a single polygon may lie more of its class, which nobody labelled.
    """
    present, codes = np.unique(labels[known], return_inverse=True)
    near = np.zeros(labels.shape, bool)
    if len(present) < 2:
        return near
    # Places in the list of classes: the filters compute in float64, which does not hold every class id.
    places = np.zeros(labels.shape, np.int32)
    places[known] = codes
    for furthest, nothing in ((scipy.ndimage.maximum_filter1d, -1), (scipy.ndimage.minimum_filter1d, len(present))):
        padded = np.pad(np.where(known, places, nothing), ((radius, radius), (0, 0)), constant_values=nothing)
        for down in range(-radius, radius + 1):
            across = math.isqrt(radius * radius - down * down)
            # A disc is a pile of rows, of each of which the filter takes linear time whatever its length.
            rows = padded[radius + down : radius + down + len(labels)]
            found = furthest(rows, 2 * across + 1, axis=1, mode="constant", cval=nothing)
            near |= (found != nothing) & (found != places)
    return near & known


def _compare_samples(
    job: Assess, legend: Legend, crosswalk: Optional[Crosswalk], tally: Tally, context: Context
) -> Tuple[str, Tuple[ClassEntry, ...], Optional[design.Strata]]:
    """Count reference points or polygons; return the layer's name, its classes, and the strata of a sample."""
    if job.samples is None:
        raise ValueError("a job without a reference raster has reference samples")
    grid = tally.mapped.grid
    given = read_layer(job.samples, context)
    layer = on_grid(given, grid, tally.mapped.name, context)
    if nameless(legend):
        refuse_names(layer, job.field, tally.mapped.name, crosswalk)
    classes = feature_classes(layer, job.field, context, legend, crosswalk=crosswalk)
    if job.erode:
        refuse_points(layer, classes)
    units, strata = units_of(job, layer, classes, context)
    pixels = pixels_of_layer(layer, classes, units, grid, context, strata is not None)
    if len(pixels.rows) == 0:
        raise BadInput(
            f"No feature of '{layer.name}' ({crs_name(given.frame.crs)}) lies on the map '{tally.mapped.name}' "
            f"({crs_name(grid.crs)}).",
            "Check that both cover the same place and that the CRS of each is right.",
        )
    left, width = int(pixels.cols.min()), int(pixels.cols.max() - pixels.cols.min()) + 1
    deep = max(1, _STRIP_PIXELS // (width * (tally.calibration.bands if tally.calibration else 1)))
    for top in range(int(pixels.rows.min()), int(pixels.rows.max()) + 1, deep):
        context.check()
        start, stop = np.searchsorted(pixels.rows, [top, top + deep])
        if start == stop:
            continue
        near = _near_in_strip(pixels, (top, left, deep, width), job.erode) if job.erode else None
        window = (top, left, min(deep, grid.height - top), width)
        tally.add(pixels.part(slice(start, stop)), window, near)
        context.progress(int(stop), len(pixels.rows), "Comparing", "pixels")
    if not tally.pairs:
        raise _nothing(layer.name, tally)
    return layer.name, classes.classes, strata


def _near_in_strip(pixels: Pixels, window: Tuple[int, int, int, int], radius: int) -> npt.NDArray[np.bool_]:
    """Return which pixels in a strip (row, col, height, width) of whole rows lie near another class, ``(N,)``."""
    top, left, deep, width = window
    first, start, stop, last = np.searchsorted(pixels.rows, [top - radius, top, top + deep, top + deep + radius])
    rows, cols = pixels.rows[first:last] - top + radius, pixels.cols[first:last] - left
    labels, known = np.zeros((deep + 2 * radius, width), np.int64), np.zeros((deep + 2 * radius, width), bool)
    labels[rows, cols], known[rows, cols] = pixels.classes[first:last], True
    near = near_another_class(labels, known, radius)
    return np.asarray(near[pixels.rows[start:stop] - top + radius, pixels.cols[start:stop] - left])


def _nothing(name: str, tally: Tally) -> BadInput:
    if tally.left_out:
        others = ((tally.unmapped, "where the map is no-data"), (tally.eroded, "near another class (ERODE)"))
        rest = "".join(f", {count} {what}" for count, what in others if count)
        return BadInput(
            f"Nothing of '{name}' is left to compare: {tally.left_out} of its labelled pixels lie in the training "
            f"area{rest}.",
            "Give a reference from elsewhere, or set LEAVE_OUT_TRAINING to false.",
        )
    if tally.eroded and not tally.unmapped:
        return BadInput(
            f"All {tally.eroded} labelled pixels of '{name}' lie nearer to another class than ERODE asks for.",
            "Choose a smaller ERODE.",
        )
    if tally.unmapped:
        return BadInput(
            f"The map '{tally.mapped.name}' is no-data on all {tally.unmapped} labelled pixels of '{name}'.",
            "Choose a reference inside the mapped area.",
        )
    return BadInput(
        f"'{name}' labels no pixel of the map '{tally.mapped.name}'.",
        "Check that both cover the same place, that the CRS of each is right, and the reference's no-data value.",
    )
