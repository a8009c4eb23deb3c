"""Selecting sample points from polygons, lines or points, on a raster's grid.

Follows OTB's PolygonClassStatistics and SampleSelection, whose periodic sampler is kept as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import SamplesResult, SelectVectorSamples
from .classes import FeatureClasses, class_texts, feature_classes
from .crosswalks import read_crosswalk
from .featurepixels import extent_text, nothing_labelled, pixel_chunks
from .nodatasamples import tell_of_losses, without_data
from .patchreading import plan_source
from .rasters import Grid, RasterReader, reading
from .rastersampling import points_at
from .rates import Rate, class_rates, rate, read_required, write_rates
from .samplingreport import ClassSamples, write_samples_report
from .selection import ClassPlan, Ordinals, draw, periodic_by_rate
from .thinning import Spacing, shuffled, thin, thinned_sentence
from .vectors import CHUNK_FEATURES, Layer, LayerWriter, on_grid, read_layer, vector_path, without_geometries

# Pixels that are sorted or counted together.
_SORTED = 2_000_000
# Fields of the input that are replaced in the output, whatever their case.
_OWN_FIELDS = ("class_id", "class_name", "originfid")


@dataclass(frozen=True, eq=False)
class _FeaturePixels:
    """The pixels of all features in the order of traversal; arrays ``(N,)`` of the smallest type that holds them.

    Attributes:
        keys: ``row * width + col``.
        classes: class of the feature, as its place in the table of classes.
        owners: positions of the features in the layer, in the order of their pixels, ``(M,)``.
        ends: how many pixels there are up to the end of each of these features, ``(M,)``.
        reached: True for the classes of which a feature lies on the raster, bool ``(K,)``.
    """

    keys: npt.NDArray[Any]
    classes: npt.NDArray[Any]
    owners: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    reached: npt.NDArray[np.bool_]

    def features_of(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the positions in the layer of the features that hold these pixels."""
        return self.owners[np.searchsorted(self.ends, places, side="right")]

    def without(self, dropped: npt.NDArray[np.int64]) -> _FeaturePixels:
        """Return the pixels without those at these places, which ascend."""
        kept = np.ones(len(self.keys), dtype=bool)
        kept[dropped] = False
        ends = self.ends - np.searchsorted(dropped, self.ends)
        return replace(self, keys=self.keys[kept], classes=self.classes[kept], ends=ends)


def select_vector_samples(job: SelectVectorSamples, context: Context) -> SamplesResult:
    """Select pixel centres inside polygons, on lines and at points, ordered by class.

    A pixel that two features of one class share counts once, for the first; one that two classes claim is ignored.

    Raises:
        BadInput: the layer is empty or has no such field, no pixel is covered, the mask lies on another grid, or a file
            cannot be read or written.
        DiskFull: no room left.
    """
    vector_path(job.output)
    # The image is looked at for no-data alone: what of it is damaged, the next step refuses.
    with reading(job.raster, salvage=True) as reader:
        layer = read_layer(job.vector, context)
        extent = extent_text(layer)
        layer = on_grid(layer, reader.grid, reader.name, context, consume=True)
        classes = feature_classes(layer, job.field, context, job.legend, job.classes, read_crosswalk(job.crosswalk))
        pixels = _pixels_of_features(job, layer, classes, reader.grid, context)
        if len(pixels.keys) == 0:
            if context.warnings and job.erode_polygons:
                raise BadInput(
                    f"ERODE_POLYGONS {job.erode_polygons} leaves no pixel of any polygon of '{layer.name}'.",
                    "Cut fewer pixels from the edges.",
                )
            raise nothing_labelled(layer.name, extent, reader, masked=job.mask is not None)
        layer = without_geometries(layer)
        pixels = _without_doubles(pixels, context)
        texts = class_texts(layer, job.field, classes)
        listed = read_required(job.rates_file) if job.rates_file and job.strategy == "byclass" else {}
        rates = _rates(job, pixels, classes, texts, _by_text(listed, classes, texts, context))
        chosen = _choose(job, pixels, classes, rates, reader.grid, context)
        _tell_of_no_data(reader, pixels, chosen, classes, context)
        rates_path = write_rates(job.rates, _shown(rates, pixels, classes, listed)) if job.rates else ""
        counts = {value: len(places) for value, places in chosen.items()}
        path = _write(job, layer, classes, pixels, np.concatenate(list(chosen.values())), reader.grid, context)
        report = _report(job, layer, classes, rates, counts, context) if job.report else ""
    table = tuple(entry for entry in classes.classes if entry.value in counts)
    by_text = {str(value): number for value, number in counts.items()}
    return SamplesResult(
        path, sum(counts.values()), by_text, table, tuple(context.warnings), rates=rates_path, report=report
    )


def _pixels_of_features(
    job: SelectVectorSamples, layer: Layer, classes: FeatureClasses, grid: Grid, context: Context
) -> _FeaturePixels:
    places = np.searchsorted([entry.value for entry in classes.classes], classes.ids)
    places = places.astype(np.min_scalar_type(len(classes.classes)))
    key_type = np.min_scalar_type(grid.width * grid.height)
    keys: List[npt.NDArray[Any]] = [np.empty(0, dtype=key_type)]
    owners: List[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    counts: List[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    reached = np.zeros(len(classes.classes), dtype=bool)
    for chunk in pixel_chunks(layer, classes, grid, job.mask, context, job.erode_polygons):
        keys.append(chunk.keys.astype(key_type))
        owners.append(chunk.positions)
        counts.append(chunk.counts)
        reached[places[chunk.positions[~chunk.outside]]] = True
    joined = np.concatenate(keys)
    # Given up before more is made: of a million polygons it is large.
    keys.clear()
    owner, count = np.concatenate(owners), np.concatenate(counts)
    return _FeaturePixels(joined, np.repeat(places[owner], count), owner, np.cumsum(count), reached)


def _without_doubles(pixels: _FeaturePixels, context: Context) -> _FeaturePixels:
    """Leave out pixels that two classes claim, and the repetitions of those that one class claims twice."""
    doubles = _doubles(pixels.keys)
    if len(doubles) == 0:
        return pixels
    shared = np.flatnonzero(doubles[np.minimum(np.searchsorted(doubles, pixels.keys), len(doubles) - 1)] == pixels.keys)
    order = shared[np.argsort(pixels.keys[shared], kind="stable")]
    keys, places = pixels.keys[order], pixels.classes[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    clear = np.minimum.reduceat(places, starts) == np.maximum.reduceat(places, starts)
    if not clear.all():
        context.warn(
            f"{np.count_nonzero(~clear)} pixels are claimed by features of two classes; they are ignored. Correct the "
            "overlapping features to use them."
        )
    dropped = np.setdiff1d(shared, order[starts[clear]])
    if len(dropped) == len(pixels.keys):
        raise BadInput("Every labelled pixel is claimed by features of two classes.", "Check the class field.")
    return pixels.without(dropped)


def _doubles(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the keys that occur more than once, ascending; range by range, as sorting takes a copy."""
    borders = np.linspace(0, int(keys.max()) + 1, len(keys) // _SORTED + 2)[1:]
    found, low = [], -1
    for border in np.ceil(borders).astype(np.int64):
        ordered = np.sort(keys[(keys > low) & (keys <= border)])
        found.append(np.unique(ordered[1:][ordered[1:] == ordered[:-1]]))
        low = int(border)
    return np.concatenate(found)


def _rates(
    job: SelectVectorSamples,
    pixels: _FeaturePixels,
    classes: FeatureClasses,
    texts: Dict[int, str],
    listed: Dict[str, int],
) -> Dict[int, Tuple[str, Rate]]:
    """Return class id -> the text of its field and its rate, of every class of the layer; ascending."""
    # In parts: counting makes 64-bit numbers of what it counts.
    numbers = np.zeros(len(classes.classes), dtype=np.int64)
    for start in range(0, len(pixels.classes), _SORTED):
        numbers += np.bincount(pixels.classes[start : start + _SORTED], minlength=len(numbers))
    available = {text: 0 for _, text in sorted(texts.items())}
    available.update({texts[entry.value]: int(number) for entry, number in zip(classes.classes, numbers)})
    # The share is a 32-bit number in the reference, which tells where 0.7 of 375 is rounded to.
    rates = class_rates(job.strategy, available, job.count, float(np.float32(job.percent)), listed)
    if not any(each.taken for each in rates.values()):
        raise BadInput(
            f"STRATEGY {job.strategy} gives no sample of any class of '{Path(job.vector.path).name}'.",
            "Ask for more with COUNT, PERCENT or RATES_FILE.",
        )
    return {value: (text, rates[text]) for value, text in sorted(texts.items())}


def _by_text(
    listed: Dict[str, int], classes: FeatureClasses, texts: Dict[int, str], context: Context
) -> Dict[str, int]:
    """Return the text of a class -> samples of a file of rates, which calls classes by text, name or number."""
    text_of = _text_of(classes, texts)
    unknown = [name for name in listed if name not in text_of]
    if unknown:
        context.warn(f"RATES_FILE lists {', '.join(unknown[:10])}, which is no class of the layer.")
    return {text_of[name]: count for name, count in listed.items() if name in text_of}


def _text_of(classes: FeatureClasses, texts: Dict[int, str]) -> Dict[str, str]:
    """Return whatever a class may be called -> the text of its field."""
    text_of = {str(value): text for value, text in texts.items()}
    text_of.update({name: texts[value] for value, name in classes.name_of().items()})
    text_of.update({text: text for text in texts.values()})
    return text_of


def _shown(
    rates: Dict[int, Tuple[str, Rate]], pixels: _FeaturePixels, classes: FeatureClasses, listed: Dict[str, int]
) -> Dict[str, Rate]:
    """Return the rates that the reference writes: of the classes on the raster, and of all that a file asks for."""
    reached = {entry.value for entry, here in zip(classes.classes, pixels.reached) if here}
    text_of = _text_of(classes, {value: text for value, (text, _) in rates.items()})
    asked = {text_of.get(name, name): rate(count, 0) for name, count in listed.items()}
    return {**asked, **{text: each for value, (text, each) in rates.items() if value in reached or text in asked}}


def _choose(
    job: SelectVectorSamples,
    pixels: _FeaturePixels,
    classes: FeatureClasses,
    rates: Dict[int, Tuple[str, Rate]],
    grid: Grid,
    context: Context,
) -> Dict[int, npt.NDArray[np.int64]]:
    """Return class id -> the places of its chosen pixels in the order of traversal; classes ascending."""
    names = classes.name_of()
    place_of = {entry.value: place for place, entry in enumerate(classes.classes)}
    chosen: Dict[int, npt.NDArray[np.int64]] = {}
    offers: Dict[int, npt.NDArray[np.int64]] = {}
    for value, (_, each) in rates.items():
        # Of strategy upto the rate is what there is, and "all where a class has fewer" is what it promises.
        short = job.strategy == "upto" and job.count > each.available
        if each.available == 0:
            context.warn(f"No pixel is left of class {value}.")
        elif each.taken == 0:
            context.warn(f"Class {value} ({names[value]}) gets no sample.")
        elif each.required > each.available:
            context.warn(
                f"Class {value} has {each.available} pixels, fewer than the {each.required} asked for: all are taken."
            )
        if each.taken:
            ordinals = _ordinals(job, each.available, each.taken, value)
            own = np.flatnonzero(pixels.classes == place_of[value])
            chosen[value] = own[ordinals]
            if job.min_distance is not None:
                offers[value] = own[_offered(job, each.available, ordinals, value)]
            context.log(
                f"Class {value} ({names[value]}): {each.available} pixels, {len(ordinals)} samples"
                + (f" (all: fewer than COUNT {job.count})." if short else ".")
            )
    if job.min_distance is not None:
        chosen = _thinned(job.min_distance, pixels, offers, chosen, names, grid, context)
    if len(chosen) == 1:
        context.warn(f"The samples have one class only ({next(iter(chosen))}); a classifier needs two or more.")
    return chosen


def _ordinals(job: SelectVectorSamples, available: int, wanted: int, value: int) -> Ordinals:
    if wanted < available and job.sampler == "periodic":
        return periodic_by_rate(available, wanted)
    drawn = draw(available, wanted, job.seed, value) if job.sampler == "random" else None
    return ClassPlan(available, wanted, 1, "spread", drawn).between(0, available)


def _offered(job: SelectVectorSamples, available: int, ordinals: Ordinals, value: int) -> Ordinals:
    """Return the ordinals of a class in the order in which they become samples: the chosen ones, then all others."""
    if job.sampler == "periodic":
        return ordinals
    others = np.ones(available, dtype=bool)
    others[ordinals] = False
    rest = np.flatnonzero(others)
    first = ordinals[shuffled(len(ordinals), job.seed, value)]
    return np.concatenate([first, rest[shuffled(len(rest), job.seed, value, turn=1)]])


def _thinned(
    distance: int,
    pixels: _FeaturePixels,
    offers: Dict[int, npt.NDArray[np.int64]],
    chosen: Dict[int, npt.NDArray[np.int64]],
    names: Dict[int, str],
    grid: Grid,
    context: Context,
) -> Dict[int, npt.NDArray[np.int64]]:
    """Return what is chosen where samples keep a distance from each other; warns of classes that give fewer."""
    keys = {value: pixels.keys[places].astype(np.int64) for value, places in offers.items()}
    wanted = {value: len(places) for value, places in chosen.items()}
    kept = thin(Spacing(distance, grid.width), keys, wanted, context)
    for value, places in kept.items():
        if len(places) < wanted[value]:
            context.warn(thinned_sentence(distance, f"{value} ({names[value]})", wanted[value], len(places)))
    return {value: np.sort(offers[value][kept[value]]) for value in chosen if len(kept[value])}


def _tell_of_no_data(
    reader: RasterReader,
    pixels: _FeaturePixels,
    chosen: Dict[int, npt.NDArray[np.int64]],
    classes: FeatureClasses,
    context: Context,
) -> None:
    """Tell of samples where the image has no data. They stay: the reference, too, selects by the polygons alone."""
    rule = plan_source(1, reader, "auto", 0.0).rule
    rows, cols = np.divmod(pixels.keys[np.concatenate(list(chosen.values()))].astype(np.int64), reader.grid.width)
    lacking = without_data(reader, rule, rows, cols, context.check)
    totals = {value: len(places) for value, places in chosen.items()}
    parts = np.split(lacking, np.cumsum(list(totals.values()))[:-1])
    lost = {value: int(np.count_nonzero(part)) for value, part in zip(totals, parts)}
    tell_of_losses(
        f"samples lie where '{reader.name}' has no data", lost, totals, classes.classes,
        "'Extract patches' leaves them out: give a MASK of the pixels that have data (the image itself, if its values "
        "are above 0), or correct the image's no-data value if it is wrong.", context,
    )  # fmt: skip


def _write(
    job: SelectVectorSamples,
    layer: Layer,
    classes: FeatureClasses,
    pixels: _FeaturePixels,
    chosen: npt.NDArray[np.int64],
    grid: Grid,
    context: Context,
) -> str:
    """Write the chosen pixels as points in pieces and return the path."""
    fields = [name for name in layer.fields if name.lower() not in _OWN_FIELDS]
    ids = np.array([entry.value for entry in classes.classes], dtype=np.int64)
    names = np.array([entry.name for entry in classes.classes], dtype=object)
    with LayerWriter(job.output, "Point", grid.crs) as writer:
        for start in range(0, len(chosen), CHUNK_FEATURES):
            context.check()
            some = chosen[start : start + CHUNK_FEATURES]
            features, places = pixels.features_of(some), pixels.classes[some]
            values: Dict[str, Any] = {name: layer.frame[name].iloc[features].reset_index(drop=True) for name in fields}
            values["class_id"] = ids[places]
            values["class_name"] = names[places]
            values["originfid"] = layer.frame.index.to_numpy(dtype=np.int64)[features]
            rows, cols = np.divmod(pixels.keys[some].astype(np.int64), grid.width)
            writer.write(points_at(grid, rows, cols), values)
            context.progress(min(start + CHUNK_FEATURES, len(chosen)), len(chosen), "Writing samples", "points")
    return writer.path


def _report(
    job: SelectVectorSamples,
    layer: Layer,
    classes: FeatureClasses,
    rates: Dict[int, Tuple[str, Rate]],
    counts: Dict[int, int],
    context: Context,
) -> str:
    ids, numbers = np.unique(classes.ids[classes.known], return_counts=True)
    features = dict(zip(ids.tolist(), numbers.tolist()))
    rows = [
        ClassSamples(
            entry, rates[entry.value][1].available, counts.get(entry.value, 0), rates[entry.value][1].required,
            features.get(entry.value, 0),
        )
        for entry in classes.classes
    ]  # fmt: skip
    facts = [
        ("Layer", layer.name), ("Class field", job.field), ("Image", job.raster.label or Path(job.raster.path).name),
        ("Strategy", job.strategy), ("Sampler", f"{job.sampler}, seed {job.seed}"),
        ("Cut from polygons", f"{job.erode_polygons} pixels"),
        ("Least distance", "none" if job.min_distance is None else f"{job.min_distance} pixels"),
    ]  # fmt: skip
    return write_samples_report(job.report, layer.name, rows, facts, context.warnings)
