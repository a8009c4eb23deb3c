"""Before the whole-block form of a network is used, it is compared with the patch form on windows of the scene."""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, List, Tuple

import numpy as np

from ...tasks.context import Context
from .base import Floats, Geometry, Mask

Scores = Callable[[Floats, Mask], Floats]

COMPARED_WINDOWS = 64
COMPARED_TILES = 2
# Largest difference that counts as equal, as a share of the scores' scale: ten times what float32 sums leave.
TOLERANCE = 1e-4
# Pixels on a side of the part of a tile that is evaluated: a U-Net's whole tile takes a second.
_PART = 128


def whole_blocks_hold(
    whole: Scores, patches: Scores, geometry: Geometry, tiles: Iterable[Tuple[Floats, Mask]], context: Context
) -> bool:
    """Tell whether the two forms of a network agree on up to 64 windows of the scene; the log says by how much.

    Args:
        whole: the scores ``(K, H, W)`` by the form for whole blocks.
        patches: the same patch by patch, of the wanted pixels.
        geometry: of both.
        tiles: values and wanted pixels of the scene's first tiles.
        context: for the log; warned where they differ.
    """
    parts = list(_parts(tiles, geometry))
    windows, difference, scale = 0, 0.0, 1.0
    for values, wanted in parts:
        chosen = _spread(wanted, COMPARED_WINDOWS // len(parts))
        expected = patches(values, chosen)[:, chosen]
        found = whole(values, chosen)[:, chosen]
        finite = np.isfinite(expected)
        if found.shape != expected.shape or not (np.isfinite(found) == finite).all():
            difference = np.inf
            break
        windows += int(np.count_nonzero(chosen))
        difference = max(difference, float(np.abs(found[finite] - expected[finite]).max(initial=0.0)))
        scale = max(scale, float(np.abs(expected[finite]).max(initial=0.0)))
    if difference > TOLERANCE * scale:
        context.warn(
            f"Mapped in large pieces, this scene gets other scores than patch by patch (by up to {difference:.2g}): it "
            "is mapped patch by patch, which takes longer."
        )
        return False
    if windows:
        context.log(
            "The scene is mapped in large pieces in place of one patch for each pixel, which is faster and gives the "
            f"same: on {windows} patches the scores differ by {difference:.1g} at most, which is rounding."
        )
    return True


def _parts(tiles: Iterable[Tuple[Floats, Mask]], geometry: Geometry) -> Iterator[Tuple[Floats, Mask]]:
    """Yield a part of each of the first tiles that hold a wanted pixel, around the middle one of them."""
    count = 0
    for values, wanted in tiles:
        places = np.argwhere(wanted)
        if not len(places):
            continue
        middle = places[len(places) // 2]
        starts: List[int] = []
        for place, length in zip(middle, wanted.shape):
            start = min(max(int(place) - _PART // 2, 0), max(length - _PART, 0))
            starts.append(start - start % geometry.stride)
        rows, cols = (slice(start, start + _PART) for start in starts)
        reach = _PART + geometry.before + geometry.after
        margin_rows, margin_cols = (slice(start, start + reach) for start in starts)
        yield values[:, margin_rows, margin_cols], wanted[rows, cols]
        count += 1
        if count == COMPARED_TILES:
            return


def _spread(wanted: Mask, count: int) -> Mask:
    """Return a mask of ``count`` of the wanted pixels, spread over all of them."""
    places = np.flatnonzero(wanted)
    chosen: Mask = np.zeros(wanted.shape, bool)
    chosen.flat[places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)]] = True
    return chosen
