"""Mapping: a raster and a model in, a class raster on the raster's own grid out, window by window.

Tiles are anchored at the raster's pixel (0, 0) and always evaluated as a whole, whatever part is asked for: the map of
a part is the crop of the whole map. A pixel i reads [i - p // 2, i + p - 1 - p // 2]; context beyond a tile or an
EXTENT is real pixels, reflection only at the raster's edge.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card, CardBand, CardSource
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Classify, ClassifyResult
from ..tasks.protocol import plugin_version
from .bandstatistics import sampled_statistics
from .computedbands import compute, parse_computed, used_bands
from .expressions import BandExpression
from .journal import SUFFIX, job_key
from .maps import MapWriter, class_areas, raster_path
from .preflight import check_resolution, check_scene, check_undeclared_nodata
from .products import products_of
from .rasters import BandInfo, Grid, RasterReader, reading
from .runtimes import BATCH, Model, Runtime, Wishes, create_runtime
from .runtimes.base import first_largest

if TYPE_CHECKING:
    from .modelfiles import LoadedModel

Array = npt.NDArray[Any]
Window = Tuple[int, int, int, int]

# Side of a tile: the outputs' own block size, 0.2 s of a small network on one core.
TILE = 256


@dataclass(frozen=True)
class Scene:
    """A scene as the model reads it.

    Attributes:
        reader: the open raster.
        source: the model's source.
        bands: position in the reader of each of the model's bands that a scene must have ``(C,)``.
        scales: factor to physical units of each of them.
        offsets: summand likewise.
        expressions: of the model's computed bands, which follow them ``(E,)``.
    """

    reader: RasterReader
    source: CardSource
    bands: Tuple[int, ...]
    scales: Array
    offsets: Array
    expressions: Tuple[BandExpression, ...] = ()

    def values(self, row: int, col: int, height: int, width: int) -> Tuple[npt.NDArray[np.float32], Array]:
        """Return the model's bands in a window, physical values ``(C + E, H, W)``, and a mask of the same shape.

        What the mask calls no-data may hold anything.
        """
        raw, valid = self.reader.read(row, col, height, width, self.source.nodata_rule)
        raw, valid = raw[list(self.bands)], valid[list(self.bands)]
        values = np.asarray(self.reader.physical(raw, self.scales, self.offsets), np.float32)
        if not self.expressions:
            return values, valid
        computed = compute(self.expressions, {i: values[i] for i in used_bands(self.expressions)}, valid)
        return np.concatenate([values, computed]), np.concatenate([valid, ~np.isnan(computed)])

    def read(self, row: int, col: int, height: int, width: int) -> Tuple[npt.NDArray[np.float32], Array]:
        """Return the bands with the patch's margin ``(C + E, H + p - 1, W + p - 1)``, NaN where no-data, and a mask.

        The mask ``(H, W)`` tells the pixels that hold a value in every band.
        """
        size = self.source.patch_size
        before = size // 2
        values, valid = self.values(row - before, col - before, height + size - 1, width + size - 1)
        values[~valid] = np.nan
        centre: Array = np.all(valid[:, before : before + height, before : before + width], axis=0)
        return values, centre


def classify(job: Classify, context: Context) -> ClassifyResult:
    """Map a raster with a trained model.

    Raises:
        BadInput: the model or the raster cannot be used, they do not fit each other, or an output cannot be written.
        DiskFull: no room for an output.
    """
    from .modelfiles import load_model

    started = time.perf_counter()
    model = load_model(job.model)
    return map_scene(model, job, context, started=started)


def map_scene(
    model: LoadedModel, job: Classify, context: Context,
    *, tile: int = TILE, batch: int = BATCH, started: Optional[float] = None,
) -> ClassifyResult:  # fmt: skip
    """Map a raster with a loaded model; see `classify`. Neither ``tile`` nor ``batch`` changes the map."""
    started = time.perf_counter() if started is None else started
    card = model.card
    if len(card.sources) != 1:
        raise BadInput(
            f"The model needs {len(card.sources)} sources, one raster is given.", "Choose a model of one source."
        )
    paths = [raster_path(path) for path in (job.output, job.probabilities, job.confidence, job.entropy, job.margin)]
    _check_outputs(job, paths)
    with reading(job.source) as reader:
        scene = open_scene(reader, card, job.continue_anyway, context)
        _preflight(scene, card, job.continue_anyway, context)
        window = _window(job, reader.grid)
        runtime = create_runtime(
            Model.of(model), Wishes(device=job.device_choice, batch=batch), context,
            _first_tiles(scene, window, tile), window[2] * window[3],
        )  # fmt: skip
        context.log(f"Mapping {window[2]} x {window[3]} pixels with {runtime.name} on {runtime.device}.")
        grid = reader.grid.crop(*window)
        tiles = list(tiles_of(window, reader.grid, tile))
        with _map_writer(
            job, card, runtime, paths, grid, [_inside(each, window) for each in tiles], context
        ) as outputs:
            _traverse(scene, runtime, window, tiles, outputs, context)
            totals = outputs.finish()
    if totals.undefined:
        context.warn(f"The model gives no finite score for {totals.undefined} pixels; they are no-data in the map.")
    pixels = int(totals.counts.sum())
    if pixels == 0:
        context.warn(f"'{scene.reader.name}' holds no valid pixel there: the map is all no-data.")
    areas = class_areas(card.classes, totals.counts, grid, context)
    return ClassifyResult(
        output=paths[0], probabilities=paths[1], confidence=paths[2], entropy=paths[3], margin=paths[4], pixels=pixels,
        seconds=time.perf_counter() - started, nodata_value=outputs.nodata, class_areas=areas, classes=card.classes,
        device=runtime.device, warnings=tuple(context.warnings),
    )  # fmt: skip


# --- the scene -------------------------------------------------------------------------------------------------------


def open_scene(reader: RasterReader, card: Card, continue_anyway: bool, context: Context) -> Scene:
    """Bring a raster's bands into the order and units of the model.

    Raises:
        BadInput: the bands do not fit.
    """
    source = card.sources[0]
    needed = source.scene_bands
    order = match_bands(reader.bands, needed, reader.name, continue_anyway, context)
    own = [reader.bands[index] for index in order]
    scales = [band.scale if wanted.scale is None else wanted.scale for band, wanted in zip(own, needed)]
    offsets = [band.offset if wanted.offset is None else wanted.offset for band, wanted in zip(own, needed)]
    # By the training scene's names: the scene may call its bands otherwise, or have them in another order.
    names = [band.name for band in needed]
    expressions = tuple(
        parse_computed(band.expression, names, "the model's EXPRESSIONS")[0] for band in source.computed_bands
    )
    if expressions:
        formulas = "; ".join(band.formula for band in source.computed_bands)
        context.log(f"The model computes from the scene's bands: {formulas}.")
    return Scene(reader, source, order, np.array(scales, float), np.array(offsets, float), expressions)


def match_bands(
    have: Sequence[BandInfo], need: Sequence[CardBand], scene: str, continue_anyway: bool, context: Context
) -> Tuple[int, ...]:
    """Return the position in the scene of each band of the model: by name, else by order.

    Args:
        have: the scene's bands.
        need: the model's bands.
        scene: what messages call the scene.
        continue_anyway: take the bands by order although some names differ.
        context: for the log.

    Raises:
        BadInput: there are too few or too many bands, or one that the model needs is missing by name.
    """
    names, wanted = [band.name for band in have], [band.name for band in need]
    if len(have) < len(need):
        raise BadInput(
            f"'{scene}' has {len(have)} bands ({_listed(names)}), the model needs {len(need)} ({_listed(wanted)}).",
            "Choose a raster with these bands, or add the missing ones as further rasters (STACK).",
        )
    named = all(wanted) and len(set(wanted)) == len(wanted)
    found = [name for name in wanted if names.count(name) == 1] if named else []
    if named and len(found) == len(wanted):
        order = tuple(names.index(name) for name in wanted)
        if order != tuple(range(len(names))):
            context.log(f"Bands of '{scene}' taken by name: {_listed(wanted)}.")
        return order
    if found and not (continue_anyway and len(have) == len(need)):
        missing = next(name for name in wanted if name not in found)
        raise BadInput(
            f"'{scene}' has no band '{missing}' ({_listed(names)}), which the model needs ({_listed(wanted)}).",
            "Choose a raster with these bands, or correct the names of its bands.",
        )
    if len(have) > len(need):
        raise BadInput(
            f"'{scene}' has {len(have)} bands ({_listed(names)}), the model needs {len(need)} ({_listed(wanted)}), and "
            "their names do not tell which.",
            "Choose the bands with BANDS, in the model's order.",
        )
    if named and any(names):
        context.warn(
            f"The bands of '{scene}' ({_listed(names)}) have other names than the model's ({_listed(wanted)}): they "
            "are taken in their order."
        )
    else:
        context.log(f"Bands of '{scene}' taken in their order.")
    return tuple(range(len(need)))


def _listed(names: Sequence[str]) -> str:
    if not any(names):
        return "unnamed"
    shown = [name or "unnamed" for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _preflight(scene: Scene, card: Card, continue_anyway: bool, context: Context) -> None:
    reader = scene.reader
    context.progress(0, 1, "Comparing the scene with the training data", "")
    check_resolution(reader, card, context)
    numbers: List[Optional[float]] = [None] * len(reader.bands)
    for position, band in zip(scene.bands, scene.source.scene_bands):
        numbers[position] = band.nodata
    check_undeclared_nodata(reader, numbers, context)
    found = sampled_statistics(reader.grid, len(scene.source.bands), scene.values, context.check)
    check_scene(found, scene.source.bands, scene=reader.name, continue_anyway=continue_anyway, context=context)


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


# --- the traversal ---------------------------------------------------------------------------------------------------


def tiles_of(window: Window, grid: Grid, tile: int) -> Iterator[Window]:
    """Yield the tiles that a window touches, row by row: anchored at pixel (0, 0), cut to the raster."""
    row, col, height, width = window
    for top in range(row // tile * tile, row + height, tile):
        for left in range(col // tile * tile, col + width, tile):
            yield top, left, min(tile, grid.height - top), min(tile, grid.width - left)


def _first_tiles(scene: Scene, window: Window, tile: int) -> Iterator[Tuple[npt.NDArray[np.float32], Array]]:
    """Yield the values and valid pixels of the window's tiles, for what a runtime tries out before it maps."""
    for top, left, rows, cols in tiles_of(window, scene.reader.grid, tile):
        yield scene.read(top, left, rows, cols)


def _inside(tile: Window, window: Window) -> Window:
    """Return the part of a tile that lies in the window, counted from the window's upper left pixel."""
    row, col = max(tile[0] - window[0], 0), max(tile[1] - window[1], 0)
    end_row = min(tile[0] + tile[2] - window[0], window[2])
    end_col = min(tile[1] + tile[3] - window[1], window[3])
    return row, col, end_row - row, end_col - col


def _traverse(
    scene: Scene, runtime: Runtime, window: Window, tiles: Sequence[Window], outputs: MapWriter, context: Context
) -> None:
    """Map the tiles of the window that are not finished yet."""
    remaining = [(number, tiles[number], _inside(tiles[number], window)) for number in outputs.todo]
    total = window[2] * window[3]
    done = total - sum(height * width for _, _, (_, _, height, width) in remaining)
    for number, (top, left, rows, cols), (row, col, height, width) in remaining:
        context.check()
        values, valid = scene.read(top, left, rows, cols)
        # The part of the tile that lies in the window, in the tile's own pixels.
        first, start = row + window[0] - top, col + window[1] - left
        part = np.s_[first : first + height, start : start + width]
        positions = probabilities = None
        if valid[part].any():
            if outputs.wants_probabilities:
                scores = runtime.scores(values, valid)[:, part[0], part[1]]
                positions, probabilities = first_largest(scores), runtime.probabilities(scores)
            else:
                positions = runtime.best(values, valid)[part]
        outputs.write(number, positions, valid[part], probabilities)
        done += height * width
        context.progress(done, total, "Mapping", "pixels")


# --- the outputs -----------------------------------------------------------------------------------------------------


def _map_writer(
    job: Classify, card: Card, runtime: Runtime, paths: Sequence[str], grid: Grid, windows: Sequence[Window],
    context: Context,
) -> MapWriter:  # fmt: skip
    """Return the writer of the job's rasters, whose journal lies beside the map, or in the scratch folder."""
    products = products_of(card.classes, paths, job.probability_type)
    key = job_key(
        job, models=[job.model], runtime=f"{runtime.name} on {runtime.device}", precision=runtime.precision,
        windows=windows, products=[product.fact for product in products],
    )  # fmt: skip
    journal = paths[0] + SUFFIX if job.resume else context.scratch("windows" + SUFFIX)
    return MapWriter(
        products, grid, card.classes, _tags(job, card, runtime), windows=windows, journal=journal, key=key,
        context=context, cog=job.format == "cog",
    )  # fmt: skip


def _check_outputs(job: Classify, paths: Sequence[str]) -> None:
    """Refuse outputs that would overwrite an input or each other."""
    given = [os.path.realpath(path) for path in paths if path]
    for path in (job.source.path, *job.source.stack):
        if os.path.realpath(path) in given:
            raise BadInput(f"The output '{path}' is the scene itself.", "Choose another output file.")
    if len(set(given)) != len(given):
        raise BadInput("Two outputs have the same file name.", "Give each output a file of its own.")


def _tags(job: Classify, card: Card, runtime: Runtime) -> Dict[str, str]:
    return {
        "TIFFTAG_SOFTWARE": f"Deepscape {plugin_version()}",
        "DEEPSCAPE_MODEL": Path(job.model).name,
        "DEEPSCAPE_NETWORK": card.network,
        "DEEPSCAPE_RUNTIME": runtime.name,
        "DEEPSCAPE_DEVICE": runtime.device,
    }
