"""The report of 'Does context help?': accuracy by patch size, error at borders, and the maps side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import rasterio
from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from ..tasks.jobs import RasterSource, TrainResult
from ..tasks.protocol import plugin_version
from . import reports
from .crossvalidation import NUMBERS
from .edges import EDGE_PX, EdgeErrors
from .metrics import class_positions
from .pairing import (
    ADDS,
    HARMS,
    MORE_SEEDS,
    UNKNOWN,
    Difference,
    Spread,
    difference,
    leniency,
    spoken_difference,
    spoken_spread,
    spread,
)
from .previews import class_picture, image_picture, png
from .reports import Section

_PICTURE_PX = 290
_IN_A_ROW = 3
# Bands that make a natural picture, by the names that scenes give them.
_NATURAL = (("red", "green", "blue"), ("b4", "b3", "b2"), ("b04", "b03", "b02"))
_READING = (
    "All methods learned from the same points and were judged on the same others. Differences are those of the runs of "
    "one seed, with the standard error of their mean; within two of them there is no improvement. {leniency} This "
    "error is that of chance in training; another choice of places may differ by more."
)
_EDGES = (
    f"Share of the test points that the maps (of seed 0) get wrong: those that lie within {EDGE_PX} pixels of a border "
    "between classes, and the others. A border is where the class that most maps give changes, the same for all. "
    "Large patches look across borders and tend to round them; points drawn inside clear areas tell little of this."
)


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """What came of one method, over the seeds.

    Attributes:
        title: with its patch size.
        forest: it is the Random Forest.
        results: of each seed.
        edges: errors of its map.
    """

    title: str
    forest: bool
    results: Tuple[TrainResult, ...]
    edges: EdgeErrors

    def spread(self, metric: str) -> Spread:
        """Return mean and deviation of a number over the seeds."""
        return spread([getattr(result, metric) for result in self.results])

    def gain(self, base: MethodRuns, metric: str = "kappa") -> Difference:
        """Return what the method has over another, in pairs of seeds."""
        ours, theirs = ([getattr(result, metric) for result in each.results] for each in (self, base))
        return difference(list(zip(theirs, ours)))


def best_of(found: Sequence[MethodRuns]) -> MethodRuns:
    """Return the network of the highest mean kappa, of ties the smallest patches; the first one is the base."""
    networks = [each for each in found[1:] if not each.forest]
    return max(networks, key=lambda each: -1.0 if each.spread("kappa").mean is None else each.spread("kappa").mean or 0)


def verdict(found: Sequence[MethodRuns]) -> str:
    """Return in a sentence or two what context adds over the smallest patches, the first of ``found``."""
    base, best = found[0], best_of(found)
    gain = best.gain(base)
    sizes = sum(not each.forest for each in found[1:])
    by = f"kappa differs by {spoken_difference(gain)} from {base.title}"
    told = {
        ADDS: f"Context helps: with {best.title}, the best size here, {by}, more than two standard errors.",
        HARMS: f"Context harms here: even with {best.title}, the best size, {by}, more than two standard errors.",
        UNKNOWN: f"Whether context helps is not known: with {best.title}, the best size here, {by}; "
        f"{gain.reason(MORE_SEEDS)}.",
    }.get(gain.verdict, f"No improvement: with {best.title}, the best size, {by}, within two standard errors.")
    if gain.verdict in (ADDS, HARMS):
        told += f" {leniency(gain.pairs)}"
    if sizes > 1:
        told += f" It is the best of {sizes} sizes by these same test points, which makes it look better than it is."
    forest = next((each for each in found if each.forest), None)
    if forest is None:
        return told
    return f"{told} The Random Forest's kappa is {spoken_spread(forest.spread('kappa'))}."


def context_page(
    name: str, facts: Sequence[Tuple[str, str]], found: Sequence[MethodRuns], maps: Sequence[str],
    source: RasterSource, classes: Tuple[ClassEntry, ...], warnings: Sequence[str],
) -> str:  # fmt: skip
    """Return the report's HTML.

    Args:
        name: of the image.
        facts: of the run.
        found: the smallest patches first.
        maps: one of each method.
        source: the image.
        classes: the class table.
        warnings: of the run.
    """
    figures = [
        (each.title, spoken_spread(each.spread("kappa")), "kappa" if each is found[0] else _gained(each, found[0]))
        for each in found
    ]
    sections = [
        Section("Warnings", reports.warnings_list(warnings)),
        Section("Answer", reports.numbers(figures), verdict(found)),
        Section("Accuracy by patch size", _levels(found), _READING.format(leniency=leniency(_pairs(found)))),
        Section("Accuracy per class", _per_class(found), "F1, mean and deviation over the seeds."),
        Section("At borders", _borders(found), _EDGES),
        Section("The maps", _pictures(found, maps, source, classes)),
        Section("Classes", reports.legend_table(classes)),
        Section("The run", reports.facts(facts)),
    ]
    return reports.page("Does context help?", sections, subtitle=name, footer=f"Deepscape {plugin_version()}")


def _pairs(found: Sequence[MethodRuns]) -> int:
    return best_of(found).gain(found[0]).pairs


def _gained(each: MethodRuns, base: MethodRuns) -> str:
    gain = each.gain(base)
    return f"{spoken_difference(gain)}: {gain.verdict}"


def _levels(found: Sequence[MethodRuns]) -> Markup:
    rows = []
    for each in found:
        gain = each.gain(found[0])
        last = ["", ""] if each is found[0] else [spoken_difference(gain), gain.verdict]
        rows.append([each.title, *(spoken_spread(each.spread(name)) for name in NUMBERS), *last])
    head = ["Method", "Overall accuracy", "Kappa", "Macro F1", "Mean IoU", "Kappa, difference", "Verdict"]
    return reports.table(head, rows)


def _per_class(found: Sequence[MethodRuns]) -> Markup:
    rows = []
    for entry in found[0].results[0].metrics["classes"]:
        cells = []
        for each in found:
            values = [_f1(result, entry["value"]) for result in each.results]
            cells.append(spoken_spread(spread(values)))
        rows.append([entry["name"], *cells])
    return reports.table(["Class", *(each.title for each in found)], rows)


def _f1(result: TrainResult, value: int) -> Optional[float]:
    return next((row["f1"] for row in result.metrics["classes"] if row["value"] == value), None)


def _borders(found: Sequence[MethodRuns]) -> Markup:
    rows = []
    for each in found:
        edges = each.edges
        rows.append(
            [
                each.title,
                reports.percent(edges.near),
                reports.grouped(edges.near_count),
                reports.percent(edges.elsewhere),
                reports.grouped(edges.elsewhere_count),
            ]
        )
    return reports.table(["Method", "Error at borders", "Points there", "Error elsewhere", "Points"], rows)


# --- pictures --------------------------------------------------------------------------------------------------------


def _pictures(
    found: Sequence[MethodRuns], maps: Sequence[str], source: RasterSource, classes: Tuple[ClassEntry, ...]
) -> Markup:
    """Return the image and the maps, some in a row."""
    shown: List[Tuple[str, Any]] = [("Image", reports.picture(_image(source, maps[0])))]
    shown += [(each.title, reports.picture(_map(path, classes))) for each, path in zip(found, maps)]
    rows = [shown[start : start + _IN_A_ROW] for start in range(0, len(shown), _IN_A_ROW)]
    return Markup().join(
        reports.table([title for title, _ in row], [[body for _, body in row]], texts=_IN_A_ROW) for row in rows
    )


def _map(path: str, classes: Tuple[ClassEntry, ...]) -> bytes:
    with rasterio.open(path) as dataset:
        values = dataset.read(1, out_shape=_shape(dataset.height, dataset.width), masked=True)
    positions = class_positions(values.data.astype(np.int64), classes)
    return png(class_picture(np.where(np.ma.getmaskarray(values), -1, positions), classes))


def _image(source: RasterSource, mapped: str) -> bytes:
    """Return the part of the image that was mapped, in natural colours where the bands' names tell them."""
    with rasterio.open(mapped) as dataset:
        height, width, place = dataset.height, dataset.width, (dataset.transform.c, dataset.transform.f)
    with rasterio.open(source.path) as dataset:
        bands = list(source.bands) or list(range(1, dataset.count + 1))
        names = {str(dataset.descriptions[band - 1] or "").lower(): band for band in bands}
        natural = next((names_of for names_of in _NATURAL if all(name in names for name in names_of)), None)
        chosen = [names[name] for name in natural] if natural else bands[:3]
        col, row = ~dataset.transform * place
        window = rasterio.windows.Window(round(col), round(row), width, height)
        values = dataset.read(chosen, window=window, out_shape=(len(chosen), *_shape(height, width)), masked=True)
    return png(image_picture(np.ma.filled(values.astype(np.float32), np.nan)))


def _shape(height: int, width: int) -> Tuple[int, int]:
    scale = min(1.0, _PICTURE_PX / width)
    return max(1, round(height * scale)), max(1, round(width * scale))
