"""A scene as a model reads it: its bands in the model's order and units, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card, CardBand, CardSource
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource
from .bandnames import as_colours, unlike, usual_order
from .computedbands import compute, parse_computed, used_bands
from .expressions import BandExpression
from .oddvalues import Outlier
from .rasters import ALPHA, BandInfo, RasterReader
from .runtimes import Geometry
from .wording import many

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Two bytes have so few values that a table of what each is in physical units is faster than computing it.
_TABLE_BYTES = 2


@dataclass(frozen=True)
class Scene:
    """A scene as the model reads it.

    Attributes:
        reader: the open raster.
        card: the model's card.
        source: the model's source.
        bands: position in the reader of each of the model's bands that a scene must have ``(C,)``.
        scales: factor to physical units of each of them.
        offsets: summand likewise.
        expressions: of the model's computed bands, which follow them ``(E,)``.
    """

    reader: RasterReader
    card: Card
    source: CardSource
    bands: Tuple[int, ...]
    scales: Array
    offsets: Array
    expressions: Tuple[BandExpression, ...] = ()
    _tables: Tuple[Values, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", self._make_tables())

    def _make_tables(self) -> Tuple[Values, ...]:
        """Return the physical value of each number that a band may hold, by its bits; none where they are no help."""
        dtype = self.reader.dtype
        plain = bool(np.all(self.scales == 1) and np.all(self.offsets == 0))
        if plain or dtype.kind not in "iu" or dtype.itemsize > _TABLE_BYTES:
            return ()
        numbers = np.arange(1 << 8 * dtype.itemsize).astype(f"uint{8 * dtype.itemsize}").view(dtype)
        every = np.broadcast_to(numbers, (len(self.bands), 1, len(numbers)))
        return tuple(self.reader.physical(every, self.scales, self.offsets)[:, 0])

    def values(self, row: int, col: int, height: int, width: int) -> Tuple[Values, Array]:
        """Return the model's bands in a window, physical values ``(C + E, H, W)``, and a mask of the same shape.

        What the mask calls no-data may hold anything.
        """
        values, valid = self._known(row, col, height, width)
        return values, np.ones(values.shape, bool) if valid is None else valid

    def absent(self, window: Tuple[int, int, int, int]) -> bool:
        """Tell, without reading, whether a window holds nothing: see `RasterReader.absent`."""
        return self.reader.absent(window, self.bands, self.source.nodata_rule)

    def read(self, row: int, col: int, height: int, width: int, margins: Geometry) -> Tuple[Values, Mask, bool]:
        """Return the bands with their margins ``(C + E, H + margins, W + margins)``, NaN where no-data.

        Returns:
            The values; the pixels ``(H, W)`` that hold a value in every band; and True where no value is NaN.
        """
        before, more = margins.before, margins.before + margins.after
        values, valid = self._known(row - before, col - before, height + more, width + more)
        if valid is None:
            return values, np.ones((height, width), bool), True
        np.copyto(values, np.nan, where=~valid)
        return values, np.all(valid[:, before : before + height, before : before + width], axis=0), False

    def stored(self, outliers: Sequence[Optional[Outlier]]) -> List[Optional[Outlier]]:
        """Return outliers of the model's bands in the numbers that the file holds, not in physical units."""
        found = []
        for outlier, scale, offset in zip(outliers, self.scales, self.offsets):
            if outlier is not None:
                value = (outlier.value - offset) / scale
                outlier = replace(outlier, value=round(value) if self.reader.dtype.kind in "iu" else value)
            found.append(outlier)
        return found

    def _known(self, row: int, col: int, height: int, width: int) -> Tuple[Values, Optional[Array]]:
        """Return what `values` does, with None for the mask where every value is valid; the values may be changed."""
        raw, known = self.reader.read_known(row, col, height, width, self.source.nodata_rule)
        values, valid = self._physical(raw), self._chosen(known)
        if not self.expressions:
            return values, valid
        present = np.ones(values.shape, bool) if valid is None else valid
        computed = compute(self.expressions, {i: values[i] for i in used_bands(self.expressions)}, present)
        return np.concatenate([values, computed]), np.concatenate([present, ~np.isnan(computed)])

    def _chosen(self, array: Optional[Array]) -> Optional[Array]:
        """Return the model's bands of the reader's ``(C, H, W)``, without a copy where they are the same."""
        if array is None or self.bands == tuple(range(len(array))):
            return array
        return array[list(self.bands)]

    def _physical(self, raw: Array) -> Values:
        if not self._tables:
            chosen = self._chosen(raw)
            return np.asarray(self.reader.physical(raw if chosen is None else chosen, self.scales, self.offsets))
        bits = raw.view(f"uint{8 * raw.dtype.itemsize}")
        values = np.empty((len(self.bands), *raw.shape[1:]), np.float32)
        for table, band, into in zip(self._tables, self.bands, values):
            np.take(table, bits[band], out=into)
        return values


def with_alpha(source: RasterSource, card: Card, context: Context) -> RasterSource:
    """Return a source with the band that it calls alpha among its bands, where the model learned from such a band.

    Near infrared as a fourth band is often called alpha. Who chose it for training need not choose it for every scene.
    """
    names = [band.name for band in card.sources[0].scene_bands]
    if source.bands or ALPHA not in names:
        return source
    with RasterReader(source) as reader:
        if not reader.alpha_remedy or len(reader.bands) + 1 != len(names):
            return source
        every, name = reader.every_band, reader.name
    context.log(f"Band {every[-1]} of '{name}', which is called alpha, is taken as a measurement, as in training.")
    return replace(source, bands=every)


def open_scene(
    reader: RasterReader, card: Card, continue_anyway: bool, context: Context, chosen: bool = False
) -> Scene:
    """Bring a raster's bands into the order and units of the model.

    Args:
        reader: the raster.
        card: of the model.
        continue_anyway: see `match_bands`.
        context: for the log.
        chosen: the user chose the bands.

    Raises:
        BadInput: the bands do not fit.
    """
    source = card.sources[0]
    needed = source.scene_bands
    order = match_bands(
        reader.bands, needed, reader.name, continue_anyway, context, chosen=chosen, remedy=reader.alpha_remedy
    )
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
    return Scene(reader, card, source, order, np.array(scales, float), np.array(offsets, float), expressions)


def match_bands(
    have: Sequence[BandInfo], need: Sequence[CardBand], scene: str, continue_anyway: bool, context: Context,
    *, chosen: bool = False, remedy: str = "",
) -> Tuple[int, ...]:  # fmt: skip
    """Return the position in the scene of each band of the model: by name, else by order.

    A band without a description has the colour that the file gives it as its name, unless the user chose the bands:
    files that call their bands red, green and blue though they show something else are common, and choosing the bands
    is the way to say so.

    Args:
        have: the scene's bands.
        need: the model's bands.
        scene: what messages call the scene.
        continue_anyway: take the bands by order although some names differ.
        context: for the log.
        chosen: the user chose the bands, in the model's order.
        remedy: what to do where the scene has a band besides these; empty where it has none.

    Raises:
        BadInput: there are too few or too many bands, or one that the model needs is missing by name.
    """
    names, wanted = [band.name for band in have], [band.name for band in need]
    called = [band.name or band.colour for band in have]
    own = f"{many(len(have), 'band')} ({_listed(called)})"
    both = f"'{scene}' has {own}, the model needs {len(need)} ({_listed(wanted)})"
    if len(have) < len(need):
        choose = "Choose a raster with these bands, or add the missing ones as further rasters (STACK)."
        raise BadInput(
            f"{both}.",
            remedy if remedy and len(have) + 1 == len(need) else choose,
        )
    named = all(wanted) and len(set(wanted)) == len(wanted)
    order = _by_name(have, wanted, chosen) if named else ()
    if order:
        if order != tuple(range(len(names))):
            places = ", ".join(str(place + 1) for place in order)
            context.log(f"Bands of '{scene}' taken by name: {_listed(wanted)} (numbers {places}).")
        return order
    # Alpha is no name of what a band shows: the model's bands are as good as unnamed.
    named = named and ALPHA not in wanted
    found = [name for name in wanted if names.count(name) == 1] if named else []
    if found and not (continue_anyway and len(have) == len(need)):
        missing = next(name for name in wanted if name not in found)
        anyway = "; CONTINUE takes the bands in their order" if len(have) == len(need) else ""
        raise BadInput(
            f"'{scene}' has no band '{missing}' ({_listed(names)}), which the model needs ({_listed(wanted)}).",
            f"Choose a raster with these bands, or correct the names of its bands{anyway}.",
        )
    if len(have) > len(need):
        raise BadInput(
            f"{both}, and their names do not tell which.",
            "Choose the bands with BANDS, in the model's order.",
        )
    if named and any(names):
        context.warn(
            f"The bands of '{scene}' ({_listed(names)}) have other names than the model's ({_listed(wanted)}): they "
            "are taken in their order."
        )
    elif not _warn_of_order(called, wanted, scene, chosen, context):
        context.log(f"Bands of '{scene}' taken in their order.")
    return tuple(range(len(need)))


def _by_name(have: Sequence[BandInfo], wanted: Sequence[str], chosen: bool) -> Tuple[int, ...]:
    """Return the position of each wanted band by its name: as it is written, else without regard to capitals.

    Args:
        have: the scene's bands.
        wanted: the names of the model's bands, each another one.
        chosen: the user chose the bands: what they are called by colour does not count.

    Returns:
        The positions; none where a band is missing, or two bands have its name.
    """
    names = [band.name for band in have]
    if all(names.count(name) == 1 for name in wanted):
        return tuple(names.index(name) for name in wanted)
    need = [name.casefold() for name in wanted]
    ways = [names] if chosen else [names, [band.name or band.colour for band in have], [band.colour for band in have]]
    for way in ways if unlike(wanted) else ():
        called = [name.casefold() for name in way]
        if all(called.count(name) == 1 for name in need):
            return tuple(called.index(name) for name in need)
    return ()


def _warn_of_order(called: Sequence[str], wanted: Sequence[str], scene: str, chosen: bool, context: Context) -> bool:
    """Warn, and return True, where the colours of bands that are taken in their order speak against it.

    Args:
        called: what the scene's bands are called.
        wanted: the names of as many bands of the model.
        scene: what messages call the scene.
        chosen: the user chose the bands.
        context: for the warning.
    """
    here, there = as_colours(called), as_colours(wanted)
    if any(there):
        if all(a == b for a, b in zip(here, there) if a and b):
            return False
        context.warn(
            f"The bands of '{scene}' are called {_listed(called)}, the model's {_listed(wanted)}: they are taken in "
            f"their order{', as BANDS gives it' if chosen else ''}."
        )
        return True
    usual = usual_order(called)
    if chosen or usual == tuple(range(len(called))):
        return False
    places = ", ".join(str(place + 1) for place in usual)
    context.warn(
        f"The bands of '{scene}' are called {_listed(called)} and are taken in their order, for the model does not "
        f"know what its own bands are called. If it was trained on {_listed([called[i] for i in usual])}, the map is "
        f"wrong: choose the BANDS {places}."
    )
    return True


def _listed(names: Sequence[str]) -> str:
    if not any(names):
        return "unnamed"
    shown = [name or "unnamed" for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
