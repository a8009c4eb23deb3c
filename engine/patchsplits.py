"""Giving patch footprints to training, validation and test: designs of the Orfeo ToolBox and of the U-Net course.

Footprints are squares of one size on one raster; places are the row and column of their first pixel. What keeps two
parts apart is counted in pixels by max(|rows|, |columns|).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context

Numbers = npt.NDArray[np.int64]
# Place of a part in `PARTS`, per footprint; NONE for those that are in no part.
Parts = npt.NDArray[np.int8]

PARTS = ("train", "validation", "test")
NONE = -1
# Shares are read as fractions, so that 0.6, 0.2 and the rest, 0.2, tie as they should.
_FINEST_SHARE = 1_000_000
# The reference's default of the share of footprints that `balanced` takes by their place alone.
_SPACE_SHARE = 0.25
# Footprints that are compared with others between two looks for a cancel.
_CHUNK = 50_000


def shares_of(train: float, validation: float) -> Tuple[Fraction, ...]:
    """Return the shares of training, validation and test, the rest, as fractions."""
    first, second = (Fraction(str(share)).limit_denominator(_FINEST_SHARE) for share in (train, validation))
    return first, second, max(Fraction(0), 1 - first - second)


def sequence(count: int, shares: Sequence[Fraction]) -> Parts:
    """Return the parts of ``count`` footprints in turn, as OTBTF's PatchesSelection deals them ``(count,)``.

    Each goes to the part with the lowest counter (footprints so far / share), ties to the first part; so the k-th
    footprint of a part comes when the counter is k / share, and sorting all of these is the whole sequence.
    """
    keys, parts = [], []
    for part, share in enumerate(shares):
        if share > 0:
            own = np.arange(min(count, math.ceil(count * share) + 1), dtype=np.float64)
            # One division of whole numbers: equal counters are equal floating-point numbers.
            keys.append(own * share.denominator / share.numerator)
            parts.append(np.full(len(own), part, dtype=np.int8))
    places = np.concatenate(parts)
    return np.asarray(places[np.lexsort((places, np.concatenate(keys)))][:count])


def within_groups(groups: Numbers, shares: Sequence[Fraction], seed: int) -> Parts:
    """Deal every group by `sequence`, its footprints in random order; a group of three or more can reach each part.

    Args:
        groups: group of each footprint ``(N,)``.
        shares: of training, validation and test.
        seed: of the order.

    Returns:
        Parts ``(N,)``.
    """
    if len(groups) == 0:
        return np.zeros(0, dtype=np.int8)
    shuffle = np.random.default_rng([seed % 2**64, 1]).permutation(len(groups))
    order = shuffle[np.argsort(groups[shuffle], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order[0]] - 1))
    sizes = np.diff(np.append(starts, len(order)))
    turn = np.arange(len(order)) - np.repeat(starts, sizes)
    parts = np.empty(len(groups), dtype=np.int8)
    parts[order] = sequence(int(sizes.max()), shares)[turn]
    return parts


# --- tiles: what lies in one is in one part --------------------------------------------------------------------------


@dataclass(frozen=True)
class Tiling:
    """The raster, cut into bands of rows and each band into tiles.

    Attributes:
        row_cuts: first row of every band, ascending.
        tile_keys: first column of every tile + its band * ``width``, ascending.
        width: more than any column.
    """

    row_cuts: Numbers
    tile_keys: Numbers
    width: int

    def __len__(self) -> int:
        return len(self.tile_keys)

    def tiles_at(self, rows: Numbers, cols: Numbers) -> Numbers:
        """Return the tile of pixels ``(N,)``."""
        bands = np.maximum(np.searchsorted(self.row_cuts, rows, side="right") - 1, 0)
        tiles = np.searchsorted(self.tile_keys, bands * self.width + cols, side="right") - 1
        return np.asarray(tiles, dtype=np.int64)

    def tiles_of(self, rows: Numbers, cols: Numbers, size: int) -> Numbers:
        """Return the tiles of the four corners of footprints ``(4, N)``: no tile is narrower than a footprint."""
        ends = size - 1
        corners = [(0, 0), (0, ends), (ends, 0), (ends, ends)]
        return np.stack([self.tiles_at(rows + down, cols + across) for down, across in corners])


def blocks(shape: Tuple[int, int], origin: int, sides: Tuple[int, int]) -> Tiling:
    """Return rectangles of ``sides`` (rows, columns), from row and column ``origin`` of a raster of ``shape`` on."""
    row_cuts, col_cuts = (
        _with_margin(np.arange(origin, length, side), side, length) for length, side in zip(shape, sides)
    )
    return _tiling(row_cuts, [col_cuts] * len(row_cuts), shape)


def subtiles(shape: Tuple[int, int], origin: int, sides: Tuple[int, int], unit: int, seed: int) -> Tiling:
    """Return rectangles cut at random: their rows and columns are ``sides`` to twice that, in multiples of ``unit``.

    The rows are cut first, and then every band of rows for itself.
    """
    generator = np.random.default_rng([seed % 2**64, 2])

    def cuts(length: int, side: int) -> Numbers:
        lowest = math.ceil(side / unit)
        steps = generator.integers(lowest, 2 * lowest, size=length // side + 1)
        places = origin + unit * np.concatenate([[0], np.cumsum(steps)])
        return _with_margin(places[places < length], side, length)

    row_cuts = cuts(shape[0], sides[0])
    return _tiling(row_cuts, [cuts(shape[1], sides[1]) for _ in row_cuts], shape)


def _with_margin(cuts: Numbers, side: int, length: int) -> Numbers:
    """Return the cuts, without one that would leave a last tile narrower than ``side``; the first tile begins at 0."""
    wide = cuts[(cuts + side <= length) | (cuts == cuts.min(initial=length))]
    wide[:1] = 0
    return wide.astype(np.int64) if len(wide) else np.zeros(1, dtype=np.int64)


def _tiling(row_cuts: Numbers, col_cuts: List[Numbers], shape: Tuple[int, int]) -> Tiling:
    keys = [band * shape[1] + cuts for band, cuts in enumerate(col_cuts)]
    return Tiling(row_cuts, np.concatenate(keys), shape[1])


def by_tiles(
    tiling: Tiling, rows: Numbers, cols: Numbers, size: int, shares: Sequence[Fraction], seed: int, context: Context
) -> Parts:
    """Give every tile to one part, and every footprint that lies in tiles of one part alone to that part.

    No two parts share a pixel. The tiles come in random order, each to the part with the lowest counter (footprints so
    far / share), ties to the first.

    Returns:
        Parts ``(N,)``; NONE for footprints across a border of parts.
    """
    middle = tiling.tiles_at(rows + size // 2, cols + size // 2)
    weights = np.bincount(middle, minlength=len(tiling))
    given = [0] * len(PARTS)
    wanted = [part for part, share in enumerate(shares) if share > 0]
    part_of_tile = np.zeros(len(tiling), dtype=np.int8)
    order = np.random.default_rng([seed % 2**64, 3]).permutation(len(tiling))
    # Empty tiles last: they weigh nothing, and must not take a part's turn.
    for number, tile in enumerate(order[np.argsort(weights[order] == 0, kind="stable")]):
        if number % _CHUNK == 0:
            context.check()
        part = min(wanted, key=lambda p: (given[p] / float(shares[p]), p))
        part_of_tile[tile] = part
        given[part] += int(weights[tile])
    corners = part_of_tile[tiling.tiles_of(rows, cols, size)]
    return np.where((corners == corners[0]).all(axis=0), corners[0], np.int8(NONE)).astype(np.int8)


# --- balance of classes ----------------------------------------------------------------------------------------------


def balanced(counts: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Choose footprints between coverage of the space and balance of the classes (OTBTF PatchesSelection, balanced).

    Every fourth footprint in order is taken for its place. The others follow, those first whose classes are least like
    (by cosine) what was taken so, and each only as long as the sum comes nearer to equal numbers of all classes.

    Args:
        counts: pixels per class of each footprint ``(N, K)``.

    Returns:
        The choice ``(N,)``.
    """
    amounts = np.asarray(counts, dtype=np.float64)
    step = int(1 / _SPACE_SHARE)
    chosen = np.zeros(len(amounts), dtype=bool)
    chosen[step - 1 :: step] = True
    seed = amounts[chosen].sum(axis=0)
    others = np.flatnonzero(~chosen)
    order = others[np.argsort(_cosine(amounts[others], seed), kind="stable")]
    nearness = _cosine(seed + np.cumsum(amounts[order], axis=0), np.ones(amounts.shape[1]))
    worse = np.flatnonzero(np.diff(nearness, prepend=_cosine(seed[None], np.ones(amounts.shape[1]))) <= 0)
    chosen[order[: worse[0] if len(worse) else len(order)]] = True
    return chosen


def rarest_class(counts: npt.NDArray[Any]) -> Numbers:
    """Return the class, a column of ``counts`` ``(N, K)``, that is the rarest in all among those of each footprint."""
    by_rarity = np.argsort(counts.sum(axis=0), kind="stable")
    return np.asarray(by_rarity[np.argmax(counts[:, by_rarity] > 0, axis=1)], dtype=np.int64)


def _cosine(amounts: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cosine between each row of ``amounts`` ``(N, K)`` and ``other`` ``(K,)``; 0 where one is zero."""
    norms = np.linalg.norm(amounts, axis=1) * np.linalg.norm(other)
    return np.asarray((amounts @ other) / np.where(norms > 0, norms, 1.0))


# --- what lies too near ----------------------------------------------------------------------------------------------


def too_near(
    rows: Numbers, cols: Numbers, parts: Parts, reach: Tuple[int, int], context: Context
) -> npt.NDArray[np.bool_]:
    """Return which footprints to drop: training gives way to validation and test, validation to test.

    Args:
        rows: first rows ``(N,)``.
        cols: first columns.
        parts: their parts.
        reach: footprints of two parts are too near when the first pixels of both are less than this many rows and less
            than this many columns apart.
        context: of the run.
    """
    dropped = np.zeros(len(parts), dtype=bool)
    for part in (1, 2):
        giving = np.flatnonzero((parts >= 0) & (parts < part) & ~dropped)
        dropped[giving[_near(rows, cols, giving, np.flatnonzero((parts == part) & ~dropped), reach, context)]] = True
    return dropped


def sharing(rows: Numbers, cols: Numbers, parts: Parts, size: int, context: Context) -> int:
    """Return how many footprints share a pixel with one of another part."""
    count = 0
    for part in range(len(PARTS)):
        own, others = np.flatnonzero(parts == part), np.flatnonzero((parts != part) & (parts >= 0))
        count += int(np.count_nonzero(_near(rows, cols, own, others, (size, size), context)))
    return count


def _near(
    rows: Numbers, cols: Numbers, own: Numbers, others: Numbers, reach: Tuple[int, int], context: Context
) -> npt.NDArray[np.bool_]:
    """Return which of the footprints ``own`` lie nearer than ``reach`` to one of ``others``."""
    from scipy.spatial import cKDTree

    near = np.zeros(len(own), dtype=bool)
    if len(own) == 0 or len(others) == 0:
        return near
    # In units in which both reaches are the same whole number, so that distances are exact.
    common = math.lcm(*reach)
    scale = common // np.array(reach)
    tree = cKDTree(np.stack([rows[others], cols[others]], axis=1) * scale)
    for start in range(0, len(own), _CHUNK):
        context.check()
        some = own[start : start + _CHUNK]
        # The bound is exclusive.
        places = np.stack([rows[some], cols[some]], axis=1) * scale
        distance, _ = tree.query(places, k=1, p=np.inf, distance_upper_bound=common)
        near[start : start + _CHUNK] = distance < common
    return near


def counts_of(parts: Parts) -> Dict[str, int]:
    """Return part -> footprints; "" for those that were not split."""
    counted = {name: int(np.count_nonzero(parts == place)) for place, name in enumerate(PARTS)}
    counted[""] = int(np.count_nonzero(parts == NONE))
    return {name: count for name, count in counted.items() if count}


def names_of(parts: Parts) -> npt.NDArray[Any]:
    """Return the names of parts ``(N,)``, "" for NONE."""
    return np.array([*PARTS, ""], dtype=object)[parts]
