"""A probability sample of a map for its accuracy assessment, stratified by the map's classes.

Sample size and allocation follow P. Olofsson et al., Good practices for estimating area and assessing accuracy of land
change, Remote Sensing of Environment 148 (2014), 42-57: equation 13 for the size, section 5.1.1 for the allocation.

The points are blind: whoever labels them must not see the map's class. ``stratum`` is a code from a shuffled list, the
points come in random order, and nothing else in the layer tells the class. An estimator needs ``stratum`` and
``weight`` alone; the class behind a code is the map's own value at any point of the stratum, and stands in the key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

import geopandas
import numpy as np
import numpy.typing as npt
import pandas

from ..tasks.classtable import ClassEntry, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import AssessmentSample, AssessmentSampleResult
from .legends import read_map_legend
from .rasters import reading
from .rastersampling import Strip, count_strips, kept_pixels, points_at
from .selection import ClassPlan, draw
from .textfiles import csv_text, write_text
from .vectors import vector_path, write_layer
from .wording import many

# Strips of the map are read once in each pass, so that a larger cache would hold what is not needed again.
_CACHE_BYTES = 64 << 20

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Design:
    """The strata, ascending by class; arrays ``(K,)``.

    Attributes:
        classes: class table.
        pixels: pixels of each class, N_h.
        deviations: expected standard deviation of "the map is right" in each class, S_h.
        samples: points of each class, n_h.
        codes: what stands for the class in the field ``stratum``.
    """

    classes: Tuple[ClassEntry, ...]
    pixels: Counts
    deviations: Floats
    samples: Counts
    codes: Counts

    @property
    def standard_error(self) -> float:
        """Return the standard error of the overall accuracy, with the finite population correction."""
        shares = self.pixels / self.pixels.sum()
        terms = (shares * self.deviations) ** 2 * (1 / self.samples - 1 / self.pixels)
        return float(np.sqrt(terms.sum()))


def assessment_sample(job: AssessmentSample, context: Context) -> AssessmentSampleResult:
    """Draw points at random in every class of a map, so many that its accuracy is known as well as is asked for.

    Raises:
        BadInput: the map has no class pixel or is no class raster, CLASS_ACCURACIES names a class that does not occur,
            or a file cannot be read or written.
        DiskFull: no room left.
    """
    vector_path(job.output)
    source = replace(job.map, bands=job.map.bands[:1] or (1,), stack=())
    with reading(source, cache=_CACHE_BYTES) as reader:
        window = (0, 0, reader.grid.height, reader.grid.width)
        strips = count_strips(reader, window, context)
        design = _design(job, _pixels_of_classes(strips, reader.name), reader.name, context)
        plans = {
            entry.value: ClassPlan(int(n), int(wanted), 1, "random", draw(int(n), int(wanted), job.seed, entry.value))
            for entry, n, wanted in zip(design.classes, design.pixels, design.samples)
        }
        pieces = []
        for piece in kept_pixels(reader, window, strips, plans, context):
            pieces.append(piece)
            context.progress(int(piece[0][-1]) + 1, reader.grid.height, "Drawing points", "rows")
        rows, cols, values = (np.concatenate(parts) for parts in zip(*pieces))
        order = _generator(job.seed, design.pixels, 1).permutation(len(rows))
        frame = _blind_points(design, values[order], points_at(reader.grid, rows[order], cols[order]))
        if reader.grid.crs is not None and reader.grid.crs.is_geographic:
            context.warn(
                f"The pixels of '{reader.name}' are parts of degrees, whose areas differ with latitude: each pixel has "
                "the same chance here, not each hectare. Reproject the map to an equal-area CRS to estimate areas."
            )
        path = write_layer(frame, job.output, "Point", reader.grid.crs, context)
    strata = _strata(design)
    key = _write_key(job.key, strata) if job.key else ""
    counts = {str(entry.value): int(n) for entry, n in zip(design.classes, design.samples)}
    return AssessmentSampleResult(
        path, key, len(frame), design.standard_error, counts, strata, design.classes, tuple(context.warnings)
    )


def _pixels_of_classes(strips: List[Strip], name: str) -> Dict[int, int]:
    """Return class value -> pixels, ascending.

    Raises:
        BadInput: all pixels are no-data.
    """
    counts: Dict[int, int] = {}
    for strip in strips:
        for value, number in strip.counts.items():
            counts[value] = counts.get(value, 0) + number
    if not counts:
        raise BadInput(f"'{name}' has no pixel with a class: all are no-data.", "Choose a class map.")
    return dict(sorted(counts.items()))


def _design(job: AssessmentSample, counts: Mapping[int, int], name: str, context: Context) -> _Design:
    legend = replace(job.legend, layer_classes=read_map_legend(job.map.path) + job.legend.layer_classes)
    pixels = np.array(list(counts.values()), np.int64)
    accuracies = _accuracies(job, counts, name)
    deviations = np.sqrt(accuracies * (1 - accuracies))
    shares = pixels / pixels.sum()
    total = job.total
    if total is None:
        total = sample_size(shares, deviations, job.target_se, int(pixels.sum()))
        expected = " to ".join(f"{each:g}" for each in sorted({float(accuracies.min()), float(accuracies.max())}))
        context.log(
            f"A standard error of {job.target_se:g} of the overall accuracy asks for {many(total, 'point')} on this "
            f"map, where user's accuracies of {expected} are expected (Olofsson et al. 2014, equation 13)."
        )
    weights = {"proportional": shares, "neyman": shares * deviations, "equal": np.ones(len(shares))}[job.allocation]
    if job.allocation == "neyman" and len(set(deviations.tolist())) == 1 and len(shares) > 1:
        context.warn(
            "ALLOCATION neyman is the same as proportional while all classes have one EXPECTED_ACCURACY; give those of "
            "single classes in CLASS_ACCURACIES."
        )
    samples = allocate(total, weights, np.minimum(job.minimum, pixels), pixels)
    design = _Design(
        resolve(counts, legend), pixels, deviations, samples,
        _generator(job.seed, pixels, 0).permutation(len(pixels)) + 1,
    )  # fmt: skip
    _tell(job, design, total, context)
    return design


def _accuracies(job: AssessmentSample, counts: Mapping[int, int], name: str) -> Floats:
    strange = sorted(set(job.class_accuracies) - {str(value) for value in counts})
    if strange:
        raise BadInput(
            f"CLASS_ACCURACIES names the class {strange[0]}, which does not occur in '{name}'.",
            f"Its classes are: {', '.join(str(value) for value in list(counts)[:30])}.",
        )
    return np.array([job.class_accuracies.get(str(value), job.expected_accuracy) for value in counts])


def sample_size(shares: Floats, deviations: Floats, target_se: float, population: int) -> int:
    """Return the points that give the overall accuracy this standard error (Olofsson et al. 2014, equation 13).

    Args:
        shares: of the map's area in each class, W_h ``(K,)``.
        deviations: expected standard deviation of each class, S_h = sqrt(U_h (1 - U_h)) ``(K,)``.
        target_se: standard error of the overall accuracy, as a share.
        population: pixels of the map, N.
    """
    numerator = float(shares @ deviations) ** 2
    size = numerator / (target_se**2 + float(shares @ deviations**2) / population)
    # 1600.0000000000002 is rounding of the shares, not a wish for one more point.
    return max(1, int(np.ceil(size - 1e-6)))


def allocate(total: int, weights: Floats, lowest: Counts, highest: Counts) -> Counts:
    """Return whole numbers ``(K,)`` in proportion to weights, within their limits, whose sum is as near to total.

    What the limits take from or give to some classes is shared among the others in proportion, as Olofsson et al. do
    after they set the number for rare classes. Rounding goes by the largest remainders, ties to the lower class.
    """
    total = int(np.clip(total, lowest.sum(), highest.sum()))
    low, high = 0.0, float(np.max(highest[weights > 0] / weights[weights > 0], initial=1.0))
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(middle * weights, lowest, highest).sum() < total:
            low = middle
        else:
            high = middle
    wanted = np.clip(high * weights, lowest, highest)
    whole = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), highest)
    order = np.lexsort((np.arange(len(wanted)), whole - wanted))
    missing = total - int(whole.sum())
    # Classes of weight 0 take part last: they are filled only where all others are full.
    while missing > 0:
        room = [index for index in order if whole[index] < highest[index]][:missing]
        whole[room] += 1
        missing -= len(room)
    return whole


def _tell(job: AssessmentSample, design: _Design, wanted: int, context: Context) -> None:
    small = [entry for entry, n in zip(design.classes, design.pixels) if n < job.minimum]
    for entry in small:
        context.warn(
            f"Class {entry.value} ({entry.name}) has fewer pixels than MINIMUM {job.minimum}: all of them are taken."
        )
    drawn = int(design.samples.sum())
    if drawn > wanted:
        context.warn(
            f"MINIMUM {job.minimum} of each of {len(design.classes)} classes makes {drawn} points, more than the "
            f"{wanted} that were asked for."
        )
    elif drawn < wanted:
        context.warn(f"The map has {drawn} pixels, fewer than the {wanted} points asked for: all are taken.")
    strata = zip(design.classes, design.samples, design.pixels)
    # By name: the codes of the strata stay blind.
    told = ", ".join(f"{entry.name} {n} of {pixels:,} pixels" for entry, n, pixels in strata)
    context.log(f"Points in each stratum: {told}.")
    context.log(
        f"{drawn} points; expected standard error of the overall accuracy: {design.standard_error:.4f} "
        f"(95 % interval: +-{1.96 * design.standard_error:.4f})."
    )


def _generator(seed: int, pixels: Counts, purpose: int) -> np.random.Generator:
    """Return the generator of a random choice; other maps give other codes for the same seed."""
    return np.random.default_rng([seed % 2**64, purpose, *(int(n) for n in pixels)])


def _blind_points(design: _Design, values: Counts, points: npt.NDArray[Any]) -> geopandas.GeoDataFrame:
    place = np.searchsorted([entry.value for entry in design.classes], values)
    fields = {
        "stratum": design.codes[place].astype(np.int32),
        "weight": (design.pixels / design.samples)[place],
        "reference": pandas.array([None] * len(values), dtype="Int32"),
    }
    return geopandas.GeoDataFrame(fields, geometry=points)


def _strata(design: _Design) -> Dict[str, Any]:
    total = int(design.pixels.sum())
    return {
        str(entry.value): {
            "stratum": int(code), "name": entry.name, "pixels": int(n), "share": int(n) / total,
            "samples": int(samples), "weight": int(n) / int(samples),
        }
        for entry, n, samples, code in zip(design.classes, design.pixels, design.samples, design.codes)
    }  # fmt: skip


def _write_key(path: str, strata: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the strata as CSV, ordered by code, and return the real path."""
    columns = ["stratum", "class_id", "name", "pixels", "share", "samples", "weight"]
    rows = [{"class_id": value, **stratum} for value, stratum in strata.items()]
    rows.sort(key=lambda row: int(str(row["stratum"])))
    return write_text(path, Path(path).suffix.lower() or ".csv", csv_text(columns, rows))
