"""A scene as a model reads it: its bands in the model's order and units, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card, CardBand, CardSource
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .computedbands import compute, parse_computed, used_bands
from .expressions import BandExpression
from .rasters import BandInfo, RasterReader
from .runtimes import Geometry

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
    return Scene(reader, card, source, order, np.array(scales, float), np.array(offsets, float), expressions)


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
            f"'{scene}' has {_bands(len(have))} ({_listed(names)}), the model needs {len(need)} ({_listed(wanted)}).",
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
            f"'{scene}' has {_bands(len(have))} ({_listed(names)}), the model needs {len(need)} ({_listed(wanted)}), "
            "and their names do not tell which.",
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


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"


def _listed(names: Sequence[str]) -> str:
    if not any(names):
        return "unnamed"
    shown = [name or "unnamed" for name in names[:20]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
