"""Selecting sample points from a label raster.

Follows OTB's LabelImageSampleSelection (OTBTF), whose periodic sampler is kept as it is; the default samplers reach
every part of a class.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from ..tasks.classtable import ClassEntry, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import SamplesResult, SelectSamples
from .classes import check_keep_list
from .crosswalks import Crosswalk, read_crosswalk
from .rasters import Array, Grid, RasterReader
from .samplingreport import ClassSamples, write_samples_report
from .selection import ClassPlan, Ordinals, draw, plan_raster
from .thinning import Keys, Spacing, shuffled, thin, thinned_sentence
from .vectors import CHUNK_FEATURES, LayerWriter, vector_path

# Pixels read at once in full-width strips, so that the order is that of the raster and the memory stays flat; a row of
# the file's own blocks may be larger, as reading a part of it decodes all.
_STRIP_PIXELS = 4_000_000
_BLOCK_ROW_PIXELS = 64_000_000
# Each strip is read whole: GDAL needs no more of it than it is just decoding.
_CACHE_BYTES = 32_000_000
# Labels of one byte are kept for the second pass when all of them need no more than this.
_KEPT_BYTES = 200_000_000
# Pixels among which the wanted ones of a class are looked for, and that are counted together.
_LOOKED_AT = 8192
_COUNTED = 4_000_000
# More different values than this are a measurement, not classes.
_MOST_CLASSES = 65_536
# When samples keep a distance, so many pixels of all classes are offered at most.
_MOST_OFFERED = 30_000_000


@dataclass(frozen=True)
class Strip:
    """Full-width rows of the sampled window, and how many pixels of each class they hold.

    Attributes:
        row: first row.
        height: rows.
        counts: class -> pixels.
        labels: the raw labels ``(height, width)``, where they were kept for the second pass.
    """

    row: int
    height: int
    counts: Dict[int, int]
    labels: Optional[Array] = field(default=None, compare=False, repr=False)


def select_samples(job: SelectSamples, context: Context) -> SamplesResult:
    """Select points at pixel centres of a label raster, in raster order.

    Raises:
        BadInput: no labelled pixel, a label that is no whole number, CLASSES or PAD leave nothing, or a file cannot be
            read or written.
        DiskFull: no room left.
    """
    vector_path(job.output)
    crosswalk = read_crosswalk(job.crosswalk)
    source = replace(job.source, bands=(job.band,), stack=())
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_NUM_THREADS=2), RasterReader(source) as reader:
        window = _sampled_window(job, reader)
        strips = count_strips(reader, window, context)
        if crosswalk:
            crosswalk.check({str(value) for strip in strips for value in strip.counts}, reader.name, context)
            strips = [replace(strip, counts=crosswalk.of_counts(strip.counts)) for strip in strips]
        counts = _wanted_counts(job, strips, reader, context)
        table = (crosswalk.table if crosswalk else resolve)(counts, job.legend)
        names = {entry.value: entry.name for entry in table}
        plans = plan_raster(counts, job.strategy, job.count, job.sampler, job.seed, context)
        for value, plan in plans.items():
            context.log(
                f"Class {value} ({names[value]}): {plan.available} pixels, {plan.wanted} samples, step {plan.step}."
            )
        if not any(plan.wanted for plan in plans.values()):
            raise BadInput(
                f"STRATEGY {job.strategy} with COUNT {job.count} gives no sample of any class of '{reader.name}'.",
                "Give a larger COUNT.",
            )
        if len(plans) == 1:
            context.warn(f"'{reader.name}' has one class only ({next(iter(plans))}); a classifier needs two or more.")
        if job.min_distance is None:
            pieces = kept_pixels(reader, window, strips, plans, context, crosswalk)
            kept = {value: plan.wanted for value, plan in plans.items() if plan.wanted}
        else:
            spaced = _spaced(job, reader, window, strips, plans, names, context, crosswalk)
            pieces = iter([_in_raster_order(spaced, reader.grid.width)])
            kept = {value: len(keys) for value, keys in spaced.items()}
        weights = {value: plans[value].available / number for value, number in kept.items()}
        path = _write(job.output, reader.grid, pieces, sum(kept.values()), weights, names, context)
    report = _report(job, reader.name, table, plans, kept, context) if job.report else ""
    classes = tuple(entry for entry in table if entry.value in kept)
    by_text = {str(value): number for value, number in kept.items()}
    return SamplesResult(path, sum(kept.values()), by_text, classes, tuple(context.warnings), report=report)


def _write(
    output: str,
    grid: Grid,
    pieces: Iterator[Tuple[Array, Array, Array]],
    total: int,
    weights: Dict[int, float],
    names: Dict[int, str],
    context: Context,
) -> str:
    """Write rows, columns and labels as points and return the path."""
    done = 0
    with LayerWriter(output, "Point", grid.crs) as writer:
        for rows, cols, values in _in_chunks(pieces):
            context.check()
            present, inverse = np.unique(values, return_inverse=True)
            texts = np.array([names[int(value)] for value in present], dtype=object)
            weight = np.array([weights[int(value)] for value in present])
            fields = {"class_id": values, "class_name": texts[inverse], "weight": weight[inverse]}
            writer.write(points_at(grid, rows, cols), fields)
            done += len(rows)
            context.progress(done, total, "Writing samples", "points")
    return writer.path


def _report(
    job: SelectSamples,
    name: str,
    table: Sequence[ClassEntry],
    plans: Dict[int, ClassPlan],
    kept: Dict[int, int],
    context: Context,
) -> str:
    by_count = job.strategy in ("upto", "constant")
    rows = [
        ClassSamples(
            entry, plans[entry.value].available, kept.get(entry.value, 0),
            job.count if by_count else plans[entry.value].wanted,
        )
        for entry in table
    ]  # fmt: skip
    facts = [
        ("Label raster", name), ("Strategy", job.strategy), ("Sampler", f"{job.sampler}, seed {job.seed}"),
        ("Margin", f"{job.pad} pixels"),
        ("Least distance", "none" if job.min_distance is None else f"{job.min_distance} pixels"),
    ]  # fmt: skip
    return write_samples_report(job.report, name, rows, facts, context.warnings)


# --- first pass: counting --------------------------------------------------------------------------------------------


def _sampled_window(job: SelectSamples, reader: RasterReader) -> Tuple[int, int, int, int]:
    """Return the window of EXTENT without the PAD pixels along the raster's four sides."""
    grid, pad = reader.grid, job.pad
    row, col, height, width = grid.window_of(job.extent) if job.extent else (0, 0, grid.height, grid.width)
    top, left = max(row, pad), max(col, pad)
    bottom, right = min(row + height, grid.height - pad), min(col + width, grid.width - pad)
    if bottom <= top or right <= left:
        raise BadInput(
            f"PAD {pad} leaves nothing of '{reader.name}' ({grid.width} x {grid.height}).",
            "Choose a smaller PAD or a larger EXTENT.",
        )
    return top, left, bottom - top, right - left


def count_strips(reader: RasterReader, window: Tuple[int, int, int, int], context: Context) -> List[Strip]:
    """Return the first pass: the strips of the window (row, col, height, width) with their pixels per class.

    Raises:
        BadInput: a label is no whole number, or there are too many different ones.
    """
    row, col, height, width = window
    rows = _strip_rows(reader, width)
    plain = _is_plain(reader)
    kept = plain and height * width <= _KEPT_BYTES
    strips: List[Strip] = []
    found: set[int] = set()
    for top in range(row, row + height, rows):
        context.check()
        deep = min(rows, row + height - top)
        if plain:
            labels = reader.read_raw(top, col, deep, width)[0]
            strips.append(Strip(top, deep, _count_bytes(labels, reader.bands[0].nodata), labels if kept else None))
        else:
            raw, valid = reader.read(top, col, deep, width)
            strips.append(Strip(top, deep, _count(_whole(raw[0][valid[0]], reader.name))))
        found |= strips[-1].counts.keys()
        if len(found) > _MOST_CLASSES:
            raise BadInput(
                f"'{reader.name}' holds more than {_MOST_CLASSES} different values: it is no label raster.",
                "Choose a raster of classes.",
            )
        context.progress(top + deep - row, height, "Counting classes", "rows")
    return strips


def _strip_rows(reader: RasterReader, width: int) -> int:
    rows = max(1, _STRIP_PIXELS // width)
    block = reader.block_height
    if block < rows:
        return rows - rows % block
    return block if block * width <= _BLOCK_ROW_PIXELS else rows


def _is_plain(reader: RasterReader) -> bool:
    """Tell whether labels are single bytes whose validity is told by their value alone."""
    return reader.dtype.kind in "iu" and reader.dtype.itemsize == 1 and not reader.masked


def _count_bytes(labels: Array, nodata: Optional[float]) -> Dict[int, int]:
    """Return value -> pixels of single bytes; two at a time, as counting takes as long for a pair as for one."""
    flat = labels.reshape(-1)
    pairs = flat[: len(flat) // 2 * 2].view(np.uint16)
    both = np.zeros(65_536, dtype=np.int64)
    for start in range(0, len(pairs), _COUNTED):
        both += np.bincount(pairs[start : start + _COUNTED], minlength=65_536)
    square = both.reshape(256, 256)
    counts = square.sum(axis=0) + square.sum(axis=1)
    if len(flat) % 2:
        counts[flat.view(np.uint8)[-1]] += 1
    signed = labels.dtype.kind == "i"
    found = {int(byte) - (256 if signed and byte > 127 else 0): int(counts[byte]) for byte in np.flatnonzero(counts)}
    return {value: found[value] for value in sorted(found) if value != nodata}


def _whole(values: Array, name: str) -> Array:
    """Return labels as integers.

    Raises:
        BadInput: a label is no whole number; names it.
    """
    if values.dtype.kind in "iu":
        return values
    wrong = values[values != np.floor(values)]
    if len(wrong):
        raise BadInput(
            f"'{name}' holds the value {wrong[0]:g}, which is no class.", "Choose a raster of whole numbers."
        )
    return values.astype(np.int64)


def _count(values: Array) -> Dict[int, int]:
    if values.dtype.itemsize <= 2:
        lowest = int(np.iinfo(values.dtype).min)
        counts = np.bincount(values.astype(np.int64) - lowest)
        present = np.flatnonzero(counts)
        return {int(value) + lowest: int(counts[value]) for value in present}
    present, number = np.unique(values, return_counts=True)
    return {int(value): int(count) for value, count in zip(present, number)}


def _wanted_counts(job: SelectSamples, strips: List[Strip], reader: RasterReader, context: Context) -> Dict[int, int]:
    """Return class id -> available pixels, ascending, of the classes to sample."""
    counts: Dict[int, int] = {}
    for strip in strips:
        for value, count in strip.counts.items():
            counts[value] = counts.get(value, 0) + count
    if not counts:
        where = "the chosen part of " if job.extent or job.pad else ""
        raise BadInput(
            f"There is no labelled pixel in {where}'{reader.name}': all are no-data.",
            "Choose another raster, BAND, EXTENT or NODATA.",
        )
    check_keep_list(set(counts), job.classes, reader.name, context)
    return {value: counts[value] for value in sorted(counts) if not job.classes or value in job.classes}


# --- second pass: finding --------------------------------------------------------------------------------------------


def kept_pixels(
    reader: RasterReader, window: Tuple[int, int, int, int], strips: List[Strip], plans: Dict[int, ClassPlan],
    context: Context, crosswalk: Optional[Crosswalk] = None,
) -> Iterator[Tuple[Array, Array, Array]]:  # fmt: skip
    """Yield rows, columns and labels of the kept pixels strip by strip, in raster order (the second pass)."""
    seen = dict.fromkeys(plans, 0)
    for strip in strips:
        context.check()
        wanted: Dict[int, Ordinals] = {}
        for value in strip.counts.keys() & plans.keys():
            chosen = plans[value].between(seen[value], seen[value] + strip.counts[value]) - seen[value]
            seen[value] += strip.counts[value]
            if len(chosen):
                wanted[value] = chosen
        if not wanted:
            continue
        labels, valid = _labels(reader, strip, window, crosswalk)
        places, values = _places(labels.reshape(-1), None if valid is None else valid.reshape(-1), wanted)
        yield strip.row + places // window[3], window[1] + places % window[3], values


def _labels(
    reader: RasterReader, strip: Strip, window: Tuple[int, int, int, int], crosswalk: Optional[Crosswalk]
) -> Tuple[Array, Optional[Array]]:
    """Return the classes of a strip, and where they are valid: None where no-data has the value of no class."""
    valid: Optional[Array] = None
    if _is_plain(reader):
        labels = strip.labels
        if labels is None:
            labels = reader.read_raw(strip.row, window[1], strip.height, window[3])[0]
        if crosswalk:
            nodata = reader.bands[0].nodata
            valid = np.ones(labels.shape, dtype=bool) if nodata is None else labels != nodata
    else:
        raw, inside = reader.read(strip.row, window[1], strip.height, window[3])
        labels, valid = raw[0], inside[0]
    return crosswalk.of_labels(labels, valid) if crosswalk and valid is not None else (labels, valid)


def _places(labels: Array, valid: Optional[Array], wanted: Dict[int, Ordinals]) -> Tuple[Array, Array]:
    """Return the flat places of the wanted ordinals of each class, ascending, and their labels."""
    if len(wanted) <= 32:
        found = []
        for value, chosen in wanted.items():
            mask = labels == value
            found.append(_located(mask if valid is None else mask & valid, chosen))
    else:
        # With many classes one stable sort is cheaper than a comparison per class.
        inside = np.arange(labels.size) if valid is None else np.flatnonzero(valid)
        order = np.argsort(labels[inside], kind="stable")
        ordered = labels[inside][order]
        found = [inside[order[np.searchsorted(ordered, value) + chosen]] for value, chosen in wanted.items()]
    places = np.concatenate(found)
    values = np.repeat(np.array(list(wanted), dtype=np.int64), [len(part) for part in found])
    order = np.argsort(places, kind="stable")
    return places[order], values[order]


def _located(mask: Array, ordinals: Ordinals) -> Ordinals:
    """Return where the wanted ones (ascending ordinals) of the True values lie; few are looked for part by part."""
    if len(ordinals) * _LOOKED_AT >= len(mask):
        return np.flatnonzero(mask)[ordinals]
    starts = np.arange(0, len(mask), _LOOKED_AT)
    ends = np.cumsum([np.count_nonzero(mask[start : start + _LOOKED_AT]) for start in starts])
    parts = np.searchsorted(ends, ordinals, side="right")
    found = []
    for part in np.unique(parts):
        start = int(starts[part])
        before = int(ends[part - 1]) if part else 0
        here = np.flatnonzero(mask[start : start + _LOOKED_AT])
        found.append(start + here[ordinals[parts == part] - before])
    return np.concatenate(found)


def _in_chunks(pieces: Iterator[Tuple[Array, Array, Array]]) -> Iterator[Tuple[Array, Array, Array]]:
    """Regroup pieces into chunks that are worth an append each."""
    held: List[Tuple[Array, Array, Array]] = []
    for piece in pieces:
        for start in range(0, len(piece[0]), CHUNK_FEATURES):
            held.append(tuple(part[start : start + CHUNK_FEATURES] for part in piece))  # type: ignore[arg-type]
            if sum(len(part[0]) for part in held) >= CHUNK_FEATURES:
                yield _joined(held)
                held = []
    if held:
        yield _joined(held)


def _joined(pieces: List[Tuple[Array, Array, Array]]) -> Tuple[Array, Array, Array]:
    rows, cols, values = (np.concatenate(parts) for parts in zip(*pieces))
    return rows, cols, values


def points_at(grid: Grid, rows: Array, cols: Array) -> npt.NDArray[Any]:
    """Return points at pixel centres."""
    return np.asarray(shapely.points(*grid.centres_of(rows, cols)))


# --- keeping a distance ----------------------------------------------------------------------------------------------


def _spaced(
    job: SelectSamples, reader: RasterReader, window: Tuple[int, int, int, int], strips: List[Strip],
    plans: Dict[int, ClassPlan], names: Dict[int, str], context: Context, crosswalk: Optional[Crosswalk],
) -> Dict[int, Keys]:  # fmt: skip
    """Return class -> samples (``row * width + col``) that keep MIN_DISTANCE; of the classes that give any.

    The pixels that are wanted without a distance are offered first; then, of classes that lack some, ever more others.
    """
    distance, width = job.min_distance or 1, reader.grid.width
    spacing = Spacing(distance, width)
    kept: Dict[int, List[Keys]] = {value: [] for value, plan in plans.items() if plan.wanted}
    missing = {value: plans[value].wanted for value in kept}
    offered = dict.fromkeys(kept, 0)
    share = max(1, _MOST_OFFERED // max(1, len(kept)))
    turn = 0
    while True:
        offers: Dict[int, ClassPlan] = {}
        for value, lacking in missing.items():
            plan = plans[value]
            more = min(plan.available, max(plan.wanted, min(plan.wanted * 8**turn, share)))
            if lacking and more > offered[value] and (turn == 0 or job.sampler != "periodic"):
                offers[value] = plan if turn == 0 else _denser(job, plan, value, more)
                offered[value] = more
        if not offers:
            break
        found: Dict[int, List[Keys]] = {value: [] for value in offers}
        for rows, cols, values in kept_pixels(reader, window, strips, offers, context, crosswalk):
            for value in np.unique(values):
                here = values == value
                found[int(value)].append(rows[here] * width + cols[here])
        candidates = {value: np.concatenate(parts) for value, parts in found.items()}
        if job.sampler != "periodic":
            for value, keys in candidates.items():
                candidates[value] = keys[shuffled(len(keys), job.seed, value, turn)]
        for value, places in thin(spacing, candidates, missing, context).items():
            kept[value].append(candidates[value][places])
            missing[value] -= len(places)
        turn += 1
    for value, lacking in missing.items():
        if lacking:
            asked = plans[value].wanted
            context.warn(thinned_sentence(distance, f"{value} ({names[value]})", asked, asked - lacking))
    return {value: np.sort(np.concatenate(parts)) for value, parts in kept.items() if sum(map(len, parts))}


def _denser(job: SelectSamples, plan: ClassPlan, value: int, wanted: int) -> ClassPlan:
    drawn = draw(plan.available, wanted, job.seed, value) if job.sampler == "random" else None
    return replace(plan, wanted=wanted, drawn=drawn)


def _in_raster_order(kept: Dict[int, Keys], width: int) -> Tuple[Array, Array, Array]:
    keys = np.concatenate(list(kept.values()))
    values = np.repeat(np.array(list(kept), dtype=np.int64), [len(part) for part in kept.values()])
    order = np.argsort(keys, kind="stable")
    rows, cols = np.divmod(keys[order], width)
    return rows, cols, values[order]
