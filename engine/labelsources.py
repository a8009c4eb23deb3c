"""The labels that a job names, a label raster or features, opened on the grid of an image."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Iterator, Optional, Tuple

from ..tasks.classtable import Legend, resolve
from ..tasks.context import Context
from ..tasks.jobs import RasterSource, VectorSource
from .crosswalks import read_crosswalk
from .denselabels import DenseLabels, OnBackground
from .featurelabels import ONLY_CLASS, FeatureLabels
from .rasterlabels import RasterLabels
from .rasters import Grid
from .vectors import read_layer


@contextlib.contextmanager
def open_labels(
    raster: Optional[RasterSource],
    features: Optional[VectorSource],
    field: str,
    grid: Grid,
    name: str,
    context: Context,
    *,
    legend: Legend = Legend(),
    classes: Tuple[int, ...] = (),
    crosswalk: str = "",
    map_legend: bool = False,
    background: bool = False,
) -> Iterator[DenseLabels]:
    """Open a label raster, or features with a class field, on the grid of an image.

    Args:
        raster: label raster (its first chosen band); this or ``features``.
        features: polygons, lines or points.
        field: class field of the features; empty = all of them are of class 1, called as the layer is.
        grid: the image's.
        name: what messages call the image.
        context: takes warnings and the cancel.
        legend: names and colours of the classes.
        classes: class ids to keep (CLASSES); empty = all.
        crosswalk: file of the classes that those of the data become (CROSSWALK); it comes before ``classes``.
        map_legend: the style in ``legend`` names the classes that the crosswalk leads to, not those of the data.
        background: what holds no label at all is of class 0, `BACKGROUND`; what is unclear or left out stays without.

    Raises:
        BadInput: the labels cannot be read, or lie outside the image.
    """
    table = read_crosswalk(crosswalk, map_legend)
    labels: DenseLabels
    if raster is not None:
        labels = RasterLabels(raster, grid, name, context, legend, classes, table)
    elif features is not None:
        named = legend if field else _named_after(features, legend)
        labels = FeatureLabels(
            read_layer(features, context), field, grid, name, context, named, classes, table, whole=background
        )
    else:
        raise ValueError("labels come from a raster or from features")
    with labels:
        yield OnBackground(labels, legend) if background else labels


def _named_after(features: VectorSource, legend: Legend) -> Legend:
    """Return a legend that calls the class of features without a class field as their layer is, else their file."""
    if legend.layer_classes:
        return legend
    # A file has a suffix, while a point in a layer's name belongs to it: 'Roofs 0.3 m'.
    name = features.label or Path(features.path).stem
    return replace(legend, layer_classes=resolve([ONLY_CLASS], names={ONLY_CLASS: name}))
