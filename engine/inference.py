"""Mapping: a raster and a model in, a class raster on the raster's own grid out, window by window.

Windows are tiles anchored at the raster's pixel (0, 0), whatever part is asked for: the map of a part is the crop of
the whole map. Context beyond a window or an EXTENT is real pixels, reflection only at the raster's edge. Threads read
and compute windows beside each other; their results are noted in the plan's order.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import itertools
import math
import os
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import numpy.typing as npt
import rasterio

from ..models.cards import Card, read_card
from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput, DiskFull
from ..tasks.jobfiles import check_inputs_stay, output_paths
from ..tasks.jobs import Classify, ClassifyResult
from ..tasks.protocol import plugin_version
from ..tasks.worker import give_back
from .bandstatistics import sampled_statistics
from .blending import with_overlap
from .damage import pixels_in, place_of
from .journal import SUFFIX, job_key, journal_file, journal_files, tiles_of
from .legends import qml_path
from .mapmasks import MapMask, open_mask, within_border
from .maps import MapWriter, class_areas, raster_path
from .oddvalues import Holes, ValueWatch, undeclared, warn_of_undeclared
from .preflight import (
    bytes_text,
    check_resolution,
    check_room,
    check_scene,
    check_undeclared_nodata,
    machine_memory,
)
from .priors import deciding
from .products import (
    CLASSES,
    CONFIDENCE,
    ENTROPY,
    MARGIN,
    PROBABILITIES,
    THRESHOLD_TAG,
    Product,
    confidence,
    products_of,
)
from .rasters import Grid, reading
from .runtimes import BATCH, Geometry, Model, Runtime, Wishes
from .runtimes.base import MEMORY_MB, Floats, first_largest
from .runtimes.combined import band_orders, create_combined, wanted_geometry
from .runtimes.deciding import check_threshold
from .scenes import Scene, open_scene, with_alpha
from .tiling import Tiling, plan, with_tiles
from .traversal import in_order
from .wording import across_by_down, as_given, many

if TYPE_CHECKING:
    from .modelfiles import LoadedModel

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Window = Tuple[int, int, int, int]

# A part of a tile is computed in whole cells of this many pixels, where the runtime's results do not hang on a
# window's size.
_CELL = 64
# Tiles that runtimes are tried out on.
_TRIAL = 512
# What the scores of a window take for each class and pixel, beside the call: logits, exponentials, probabilities.
_SCORES_BYTES = 16
# Of a map with fewer pixels, one class is no surprise.
_MANY_PIXELS = 10_000
# Memory that is told is an estimate: what is a little more than MEMORY is no reason to warn.
_MORE_THAN_ASKED = 1.1
# Pixels computed for each that is mapped, from which on the job says what makes it faster.
_DEAR_MARGINS = 4.0


def classify(job: Classify, context: Context) -> ClassifyResult:
    """Map a raster with a trained model.

    Raises:
        BadInput: the model or the raster cannot be used, they do not fit each other, or an output cannot be written.
        DiskFull: no room for an output.
    """
    started = time.perf_counter()
    return map_scene(Model(read_card(job.model), job.model), job, context, started=started)


def map_scene(
    model: Union[Model, LoadedModel], job: Classify, context: Context,
    *, tile: Optional[int] = None, batch: int = BATCH, started: Optional[float] = None,
) -> ClassifyResult:  # fmt: skip
    """Map a raster with a model; see `classify`. Neither ``tile``, a side in pixels, nor ``batch`` changes the map."""
    started = time.perf_counter() if started is None else started
    models = _models(Model.of(model), job, context)
    cards = [each.card for each in models]
    card = cards[0]
    orders = band_orders(cards, [Path(path).name for path in (job.model, *job.more_models)], context)
    products = _products(job, card)
    _check_outputs(job)
    with contextlib.ExitStack() as stack:
        source = with_alpha(job.source, card, context)
        reader = stack.enter_context(reading(source, salvage=job.damaged == "nodata"))
        scene = open_scene(reader, card, job.continue_anyway, context, chosen=bool(job.source.bands))
        mask = stack.enter_context(open_mask(job, reader.grid, reader.name, context))
        window = _window(job, reader.grid)
        check_threshold(job.threshold, cards)
        _preflight(scene, cards, orders, job.continue_anyway, context)
        wishes = Wishes(job.runtime, job.precision, job.device_choice, batch, job.memory or MEMORY_MB)
        margins = wanted_geometry(cards, job.tta)
        trial = functools.partial(_trial_tiles, scene, window, margins)
        runtime = create_combined(models, orders, wishes, job.tta, context, trial, window[2] * window[3])
        # Of the whole scene: shares that are estimated must not depend on the part that is mapped.
        whole = (0, 0, reader.grid.height, reader.grid.width)
        spread = functools.partial(_trial_tiles, scene, whole, runtime.geometry)
        runtime = deciding(runtime, job, cards, spread, context)
        give_back()
        key = functools.partial(_key, job, runtime, products)
        tiling = _tiling(scene, runtime, job, tile, key, context)
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=tiling.cache))
        tiles = list(tiling.windows(window, reader.layout))
        windows = [_moved(_common(each, window), window) for each in tiles]
        facts = key(windows, tiling)
        _announce(products, len(card.classes), window, runtime, tiling, job, facts, context)
        _tell_of_margins(card, runtime.geometry, tiling, window, context)
        grid = reader.grid.crop(*window)
        outputs = stack.enter_context(_map_writer(job, cards, runtime, products, grid, windows, facts, context))
        mapper = Mapper(
            scene,
            runtime,
            outputs,
            tiles,
            window,
            threading.BoundedSemaphore(runtime.beside),
            mask,
            margins if job.border == "nodata" else None,
            job.min_confidence,
        )
        _traverse(mapper, context)
        _tell_of_damage(scene, window, context)
        mapper.holes.tell([band.formula for band in scene.source.computed_bands], reader.name, context)
        if job.min_confidence is not None:
            mapper.doubtful.tell(job.min_confidence, len(outputs.todo) == len(tiles), context)
        totals = outputs.finish()
    pixels = int(totals.counts.sum())
    if pixels == 0 and not totals.undefined:
        context.warn(_nothing_mapped(scene.reader.name, job))
    if totals.undefined:
        every = " (all that have data: its weights, or values of the image, are of no use)" if pixels == 0 else ""
        count = many(totals.undefined, "pixel")
        context.warn(f"The model gives no finite score for {count}{every}: no-data in the map.")
    _tell_of_one_class(card.classes, totals.counts.sum(axis=0), job, check_threshold(job.threshold, cards), context)
    paths = {product.kind: product.path for product in products}
    return ClassifyResult(
        output=paths[CLASSES], probabilities=paths.get(PROBABILITIES, ""), confidence=paths.get(CONFIDENCE, ""),
        entropy=paths.get(ENTROPY, ""), margin=paths.get(MARGIN, ""), pixels=pixels,
        seconds=time.perf_counter() - started, nodata_value=outputs.nodata,
        class_areas=class_areas(card.classes, totals.counts, grid, context), classes=card.classes,
        device=runtime.device, warnings=tuple(context.warnings),
    )  # fmt: skip


# --- before the first window -----------------------------------------------------------------------------------------


def _check_card(card: Card, path: str) -> None:
    if not card.sources or not card.classes:
        raise BadInput(f"The model card of '{path}' names no bands or no classes.", "Train the model again.")
    if len(card.sources) != 1:
        raise BadInput(
            f"The model needs {len(card.sources)} sources, one raster is given.", "Choose a model of one source."
        )


def _check_given_once(paths: Sequence[str]) -> None:
    """Refuse a model that would be averaged with itself: it takes longer, and changes the weights at most."""
    remedy = "Remove it from MODELS: each model counts once."
    for known, path in itertools.combinations(paths, 2):
        if os.path.samefile(path, known):
            raise BadInput(f"The model '{path}' is given twice.", remedy)
        if filecmp.cmp(path, known, shallow=False):
            raise BadInput(f"The model '{path}' is a copy of '{known}'.", remedy)


def _models(first: Model, job: Classify, context: Context) -> List[Model]:
    """Return the job's models, which overlap windows as it says."""
    models = [first, *(Model(read_card(path), path) for path in job.more_models)]
    for model, path in zip(models, (job.model, *job.more_models)):
        _check_card(model.card, path)
    _check_given_once([model.path for model in models if model.path])
    return [replace(model, card=with_overlap(model.card, job.overlap, context)) for model in models]


def _preflight(
    scene: Scene, cards: Sequence[Card], orders: Sequence[Tuple[int, ...]], continue_anyway: bool, context: Context
) -> None:
    """Compare the scene with what each model was trained on; ``orders`` are those of their bands in the scene."""
    reader = scene.reader
    context.progress(0, 1, "Comparing the scene with the training data", "")
    for card in cards:
        check_resolution(reader, card, context)
    numbers: List[Optional[float]] = [None] * len(reader.bands)
    for position, band in zip(scene.bands, scene.source.scene_bands):
        numbers[position] = band.nodata
    told = check_undeclared_nodata(reader, numbers, context)
    watch = ValueWatch([band.formula for band in scene.source.computed_bands])
    found = sampled_statistics(reader.grid, len(scene.source.bands), scene.values, context.check, watch)
    outliers = watch.outliers()
    odd = undeclared(scene.stored(outliers), reader.name, [position + 1 for position in scene.bands])
    plain = bool(np.all(scene.scales == 1) and np.all(scene.offsets == 0))
    for card, order in zip(cards, orders):
        check_scene(
            found.of(order), card.sources[0].bands, scene=reader.name, continue_anyway=continue_anyway,
            context=context, undeclared=odd, rest=found.without(outliers).of(order), plain=plain,
        )  # fmt: skip
    # Where it is the cause of a refusal, that says it; and of the training scene's own number it was told already.
    if not told:
        warn_of_undeclared(*odd, context)


def _window(job: Classify, grid: Grid) -> Window:
    """Return the window (row, col, height, width) that is to be mapped."""
    if job.extent is not None:
        return grid.window_of(job.extent)
    if job.box is None:
        return 0, 0, grid.height, grid.width
    x, y, width, height = job.box
    if x < 0 or y < 0 or x + width > grid.width or y + height > grid.height:
        raise BadInput(
            f"The box {x}:{y}:{width}:{height} reaches beyond the raster of {grid.width} x {grid.height} pixels.",
            "Give x:y:width:height in pixels inside the raster.",
        )
    return y, x, height, width


def _trial_tiles(
    scene: Scene, window: Window, margins: Geometry
) -> Iterator[Tuple[npt.NDArray[np.float32], Mask]]:  # fmt: skip
    """Yield the values and valid pixels of the window's tiles, for what a runtime tries out before it maps."""
    grid = scene.reader.grid
    tiling = Tiling(_TRIAL, _TRIAL, math.ceil(grid.width / _TRIAL) * _TRIAL, 0, 0)
    for row, col, height, width in tiling.windows(window, scene.reader.layout):
        values, valid, _ = scene.read(row, col, height, width, margins)
        yield values, valid


def _tiling(
    scene: Scene, runtime: Runtime, job: Classify, side: Optional[int],
    key: Callable[[Sequence[Window], Optional[Tiling]], Dict[str, Any]], context: Context,
) -> Tiling:  # fmt: skip
    """Return the tiles of the job: those of its journal where it was interrupted, else what its memory allows."""
    each = runtime.bytes_per_pixel
    if scene.card.output == "pixels" and (len(output_paths(job)) > 1 or job.min_confidence is not None):
        each += _SCORES_BYTES * len(scene.card.classes)
    facts = scene.reader.layout, runtime.geometry, each, runtime.beside, job.memory or MEMORY_MB
    found = plan(*facts)
    if side is not None:
        return Tiling(side, side, -(-facts[0].width // side) * side, found.cache, found.memory)
    journal = _journal_of(job)
    kept = tiles_of(journal, key((), None)) if journal else ()
    if not kept or kept == (found.height, found.width, found.band):
        return found
    height, width, band = kept
    continued = with_tiles((height, width, band), *facts)
    if job.memory and continued.memory > max(found.memory, job.memory * 1_000_000):
        # Whoever gives less MEMORY after a job that had too little does not want the same windows again.
        context.log(
            f"The map was begun in tiles of {across_by_down(height, width)}, which take about "
            f"{bytes_text(continued.memory)} of memory: they are not continued with a MEMORY of {job.memory} MB."
        )
        return found
    context.log(
        f"The map was begun in tiles of {across_by_down(height, width)} and is continued in them, although MEMORY "
        f"would now give tiles of {across_by_down(found.height, found.width)}."
    )
    return continued


def _announce(
    products: Sequence[Product], classes: int, window: Window, runtime: Runtime, tiling: Tiling, job: Classify,
    key: Mapping[str, Any], context: Context,
) -> None:  # fmt: skip
    """Say what the job will take, and refuse it where the outputs may not find room.

    Args:
        products: the rasters.
        classes: number of them.
        window: that is mapped.
        runtime: what computes.
        tiling: its tiles.
        job: what is asked for.
        key: what its windows depend on.
        context: for the log.

    Raises:
        DiskFull: there is too little.
    """
    pixels = window[2] * window[3]
    sizes = {product.path: _most_bytes(product, classes) * pixels for product in products}
    # The log of finished windows holds the same once more, beside the first of them.
    needed = {path: math.ceil(size) for path, size in sizes.items()}
    log = math.ceil(sum(sizes.values()))
    # What an interrupted job left of it need not find room again; what is kept of another job gives none.
    journal = journal_file(_journal_of(job), key) if job.resume else ""
    needed[products[0].path] += max(0, log - (os.path.getsize(journal) if os.path.isfile(journal) else 0))
    many = f" ({pixels / 1e6:.3g} million)" if pixels >= 1e6 else ""
    context.log(
        f"Mapping {across_by_down(*window[2:])} pixels{many} with {runtime.name} on {runtime.device}, in tiles of "
        f"{across_by_down(tiling.height, tiling.width)}: about {bytes_text(tiling.memory)} of memory, at most "
        f"{bytes_text(sum(needed.values()))} on the disk."
    )
    if job.memory and tiling.memory > _MORE_THAN_ASKED * job.memory * 1_000_000:
        context.warn(f"MEMORY is {job.memory} MB, but the smallest windows of this model may take more, as told.")
    most = machine_memory()
    if most is not None and tiling.memory > most:
        context.warn(
            f"The job may take about {bytes_text(tiling.memory)} of memory, but this machine has {bytes_text(most)}. "
            "Give a smaller MEMORY."
        )
    try:
        check_room(needed)
    except DiskFull as error:
        kept = [file for file in journal_files(_journal_of(job)) if file != journal] if job.resume else []
        for file in kept:
            size, name = bytes_text(os.path.getsize(file)), os.path.basename(file)
            error.remedy += f" '{name}' holds {size} of another job of this map: delete it if that is not to continue."
        raise


def _tell_of_margins(card: Card, geometry: Geometry, tiling: Tiling, window: Window, context: Context) -> None:
    """Say what makes mapping faster where most of the pixels that are computed are margins of tiles."""
    if card.output != "pixels" or card.context != "local" or window[2] * window[3] <= tiling.height * tiling.width:
        return
    height, width = (length + geometry.before + geometry.after for length in (tiling.height, tiling.width))
    times = height * width / (tiling.height * tiling.width)
    if times >= _DEAR_MARGINS:
        context.log(
            f"The network looks {geometry.before} pixels beyond a tile: {times:.0f} times as many pixels are computed "
            "as are mapped. More MEMORY makes the tiles larger; a smaller OVERLAP is faster, too, but then classes "
            "depend on where tiles begin."
        )


def _leaving_out(job: Classify) -> List[str]:
    """Return the parameters that leave out pixels of the scene which hold values."""
    given = {
        "MASK": job.mask is not None or job.mask_layer is not None,
        "BORDER": job.border == "nodata",
        "MIN_CONFIDENCE": job.min_confidence is not None,
    }
    return [name for name, is_given in given.items() if is_given]


def _nothing_mapped(scene: str, job: Classify) -> str:
    """Say that a map is all no-data, and what to look at."""
    own = _leaving_out(job)
    area = "BOX" if job.box is not None else "EXTENT" if job.extent is not None else ""
    where = f"the {area} in '{scene}'" if area else f"'{scene}'"
    if not own:
        return f"The map is all no-data: {where} holds no valid pixel."
    verb = "leaves" if len(own) == 1 else "leave"
    look = " Look at the mask and the image on the map." if "MASK" in own else ""
    return f"The map is all no-data: {' and '.join(own)} {verb} no valid pixel of {where}.{look}"


def _most_bytes(product: Product, classes: int) -> float:
    """Return the bytes that a pixel of a product may take: deflated classes at worst what random ones would."""
    if product.kind != CLASSES:
        return product.bands * np.dtype(product.dtype).itemsize
    return min(np.dtype(product.dtype).itemsize, 0.2 + math.log2(classes + 2) / 8)


# --- the windows -----------------------------------------------------------------------------------------------------


class Doubtful:
    """Counts the pixels that MIN_CONFIDENCE leaves out; threads may share it."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._below = self._mapped = 0

    def add(self, below: Mask, mapped: Mask) -> None:
        """Take in a window: the pixels that are left out, and all that are mapped."""
        counts = int(np.count_nonzero(below)), int(np.count_nonzero(mapped))
        with self._lock:
            self._below, self._mapped = self._below + counts[0], self._mapped + counts[1]

    def tell(self, least: float, all_windows: bool, context: Context) -> None:
        """Say how many they are; ``all_windows`` is False where some were mapped by the interrupted job before."""
        if self._mapped:
            where = "" if all_windows else " in the windows that were mapped now"
            context.log(
                f"MIN_CONFIDENCE {as_given(least)} leaves out {self._below:,} of {self._mapped:,} pixels "
                f"({self._below / self._mapped:.1%}){where}."
            )


@dataclass(frozen=True)
class Mapper:
    """Maps one window after the other; threads call it at the same time.

    Attributes:
        scene: what is read.
        runtime: what computes.
        outputs: what is kept of a window.
        tiles: the plan.
        window: that is mapped; of the tiles at its edge a part.
        turns: to compute; one window more than there are turns is read meanwhile.
        mask: pixels to be mapped; None = all.
        needed: leave out pixels around which the raster does not hold these margins; None = leave out none.
        least: probability of its class below which a pixel is no-data; None = any.
        holes: counts the pixels that formulas have no value for.
        doubtful: counts those that ``least`` leaves out.
    """

    scene: Scene
    runtime: Runtime
    outputs: MapWriter
    tiles: Sequence[Window]
    window: Window
    turns: threading.BoundedSemaphore
    mask: Optional[MapMask] = None
    needed: Optional[Geometry] = None
    least: Optional[float] = None
    holes: Holes = field(default_factory=Holes)
    doubtful: Doubtful = field(default_factory=Doubtful)

    def __call__(self, number: int) -> bytes:
        """Return what is kept of a tile of the plan."""
        part = _common(self.tiles[number], self.window)
        cells = self._computed(self.tiles[number], part)
        asked = self._asked(part)
        if asked is None or self.scene.absent(part):
            return self.outputs.pack(None, np.zeros(part[2:], bool))
        values, valid, whole = self.scene.read(*cells, self.runtime.geometry)
        inner = _slices(_moved(part, cells))
        if self.scene.expressions and not whole:
            shown = _slices(_moved(part, cells), self.runtime.geometry.before)
            self.holes.add(values[(slice(None), *shown)], asked, len(self.scene.expressions))
        wanted = np.zeros_like(valid)
        wanted[inner] = valid[inner] & asked
        if not wanted.any():
            return self.outputs.pack(None, wanted[inner])
        with self.turns:
            return self._mapped(values, wanted, whole, inner)

    def _mapped(self, values: Floats, wanted: Mask, whole: bool, inner: Tuple[slice, slice]) -> bytes:
        """Return what is kept of the inner part of a window that was read."""
        if not self.outputs.wants_probabilities and self.least is None:
            return self.outputs.pack(self.runtime.best(values, wanted, whole)[inner], wanted[inner])
        scores = self.runtime.scores(values, wanted, whole)[(slice(None), *inner)]
        return self._with_probabilities(scores, wanted[inner])

    def _with_probabilities(self, scores: Array, wanted: Mask) -> bytes:
        positions, probabilities = first_largest(scores), self.runtime.probabilities(scores)
        if self.least is not None:
            below = wanted & (confidence(probabilities, positions) < self.least)
            self.doubtful.add(below, wanted)
            wanted = wanted & ~below
        return self.outputs.pack(positions, wanted, probabilities if self.outputs.wants_probabilities else None)

    def _computed(self, tile: Window, part: Window) -> Window:
        """Return the window that is computed for a part of a tile."""
        if part == tile or not self.runtime.exact:
            return tile
        cell = math.lcm(_CELL, self.runtime.geometry.stride)
        row, col = part[0] // cell * cell, part[1] // cell * cell
        bottom, right = (-(-(part[i] + part[i + 2]) // cell) * cell for i in (0, 1))
        return _common((row, col, bottom - row, right - col), tile)

    def _asked(self, part: Window) -> Optional[Mask]:
        """Return the pixels of a window that are to be mapped where they are valid; None where there are none."""
        asked = np.ones(part[2:], bool)
        found = [None if self.mask is None else self.mask.inside(part)]
        if self.needed is not None:
            grid = self.scene.reader.grid
            found.append(within_border(part, self.needed, grid.height, grid.width))
        for inside in found:
            if inside is not None:
                asked &= inside
        return asked if asked.any() else None


def _traverse(mapper: Mapper, context: Context) -> None:
    """Map the windows that are not finished yet."""
    outputs, tiles = mapper.outputs, mapper.tiles
    sizes = [math.prod(_common(tile, mapper.window)[2:]) for tile in tiles]
    total = sum(sizes)
    done = total - sum(sizes[number] for number in outputs.todo)
    # Where calls run beside each other, one is always reading while others compute.
    threads = max(2, mapper.runtime.beside)
    results = in_order(outputs.todo, mapper, threads, context.check)
    with contextlib.closing(results):
        for number, content in zip(outputs.todo, results):
            outputs.add(number, content)
            done += sizes[number]
            # Whoever shows this adds the rate and the remaining time: the log needs none of its own.
            context.progress(done, total, "Mapping", "pixels")


def _common(tile: Window, window: Window) -> Window:
    """Return the part of a tile that lies in a window."""
    top, left = max(tile[0], window[0]), max(tile[1], window[1])
    bottom, right = (min(tile[i] + tile[i + 2], window[i] + window[i + 2]) for i in (0, 1))
    return top, left, bottom - top, right - left


def _moved(part: Window, window: Window) -> Window:
    """Return a part in the pixels of a window that it lies in."""
    return part[0] - window[0], part[1] - window[1], part[2], part[3]


def _slices(part: Window, before: int = 0) -> Tuple[slice, slice]:
    """Return the rows and columns of a part of an array that has so many more pixels before its first."""
    row, col, height, width = part
    return slice(before + row, before + row + height), slice(before + col, before + col + width)


def _tell_of_damage(scene: Scene, window: Window, context: Context) -> None:
    """Warn of blocks that could not be decoded and were taken as no-data."""
    found = [box for box in scene.reader.damaged if pixels_in([box], window)]
    if found:
        context.warn(
            f"'{scene.reader.name}' is damaged in {many(len(found), 'block')}, the first {place_of(found[0])}: "
            f"{many(pixels_in(found, window), 'pixel')} are no-data in the map."
        )


def _tell_of_one_class(
    classes: Sequence[ClassEntry], counts: npt.NDArray[np.int64], job: Classify, threshold: Optional[float],
    context: Context,
) -> None:  # fmt: skip
    """Say that a map holds one class alone, which may be taken for a failure of the mapping, and what may cause it.

    Args:
        classes: of the model.
        counts: pixels of each ``(K,)``.
        job: what was asked for.
        threshold: that the second of two classes is mapped by; None = it is the larger probability that counts.
        context: for the log.
    """
    found = np.flatnonzero(counts)
    if len(found) != 1 or len(classes) < 2 or counts.sum() < _MANY_PIXELS:
        return
    causes = ["the image shows nothing else", "the model has learned too little, which its report tells"]
    if threshold is not None:
        causes.append(f"the threshold of {threshold:g} is too {'low' if found[0] else 'high'} for this image")
    if job.min_confidence is not None:
        causes.append("MIN_CONFIDENCE leaves out the others")
    context.log(
        f"The whole map is '{classes[found[0]].name}', one of the {len(classes)} classes of the model. Perhaps "
        f"{'; perhaps '.join(causes)}.{'' if job.probabilities else ' PROBABILITIES show how near the others come.'}"
    )


# --- the outputs -----------------------------------------------------------------------------------------------------


def _products(job: Classify, card: Card) -> Tuple[Product, ...]:
    paths = [raster_path(path) for path in (job.output, job.probabilities, job.confidence, job.entropy, job.margin)]
    return products_of(card.classes, paths, job.probability_type)


def _map_writer(
    job: Classify, cards: Sequence[Card], runtime: Runtime, products: Sequence[Product], grid: Grid,
    windows: Sequence[Window], key: Mapping[str, Any], context: Context,
) -> MapWriter:  # fmt: skip
    """Return the writer of the job's rasters, whose journal lies beside the map, or in the scratch folder."""
    journal = _journal_of(job) or context.scratch("windows" + SUFFIX)
    return MapWriter(
        products, grid, cards[0].classes, _tags(job, cards, runtime), windows=windows, journal=journal, key=key,
        context=context, cog=job.format == "cog", continues=job.resume,
    )  # fmt: skip


def _journal_of(job: Classify) -> str:
    """Return the path of the journal beside the map; empty for a map that is not to be continued."""
    return raster_path(job.output) + SUFFIX if job.resume else ""


def _key(
    job: Classify, runtime: Runtime, products: Sequence[Product], windows: Sequence[Window], tiling: Optional[Tiling]
) -> Dict[str, Any]:
    return job_key(
        job, models=[job.model, *job.more_models], runtime=f"{runtime.name} on {runtime.device}",
        precision=runtime.precision, windows=windows, products=[product.fact for product in products],
        tiles=(tiling.height, tiling.width, tiling.band) if tiling else (),
    )  # fmt: skip


def _check_outputs(job: Classify) -> None:
    """Refuse outputs that would overwrite an input or each other, by their whole names: ``map`` becomes ``map.tif``.

    The check of every job's outputs does not know of the suffix that a raster gets here.
    """
    given = output_paths(job)
    for path in given.values():
        if os.path.isdir(path):
            raise BadInput(f"The output '{path}' is a folder.", "Give a file name in it.")
    whole = {name.upper(): raster_path(path) for name, path in given.items()}
    check_inputs_stay(job, whole)
    for (first, path), (second, other) in itertools.combinations(whole.items(), 2):
        if os.path.realpath(path) == os.path.realpath(other):
            raise BadInput("Two outputs have the same file name.", "Give each output a file of its own.")
        # QGIS finds a style by the name before the suffix.
        if os.path.realpath(qml_path(path)) == os.path.realpath(qml_path(other)):
            raise BadInput(
                f"{first} '{path}' and {second} '{other}' would share the style '{os.path.basename(qml_path(path))}'.",
                "Give outputs names that differ before the suffix.",
            )


def _tags(job: Classify, cards: Sequence[Card], runtime: Runtime) -> Dict[str, str]:
    threshold = check_threshold(job.threshold, cards)
    return {
        "TIFFTAG_SOFTWARE": f"Deepscape {plugin_version()}",
        "DEEPSCAPE_MODEL": ", ".join(Path(path).name for path in (job.model, *job.more_models)),
        "DEEPSCAPE_NETWORK": ", ".join(card.network for card in cards),
        "DEEPSCAPE_TTA": job.tta,
        "DEEPSCAPE_PRIORS": job.priors,
        "DEEPSCAPE_RUNTIME": runtime.name,
        "DEEPSCAPE_DEVICE": runtime.device,
        "DEEPSCAPE_PRECISION": runtime.precision,
        **({} if threshold is None else {THRESHOLD_TAG: repr(threshold)}),
        **({} if job.min_confidence is None else {"DEEPSCAPE_MIN_CONFIDENCE": repr(job.min_confidence)}),
        **({} if job.overlap is None else {"DEEPSCAPE_OVERLAP": str(job.overlap)}),
    }
