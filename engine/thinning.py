"""Thinning: samples of all classes keep a distance of max(|dx|, |dy|) pixels from each other.

The pixels are sorted into square cells as wide as the distance. Two samples of one cell are always too near, and only
samples of the eight cells around can be, so that each is found by a search in a sorted list of cells: nothing grows
with the raster, only with the samples.
"""

from __future__ import annotations

from typing import Dict, List, Mapping

import numpy as np
import numpy.typing as npt

from ..tasks.context import Context

Keys = npt.NDArray[np.int64]

# Candidates that are looked at together.
_BATCH = 500_000
_AROUND = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]


class Spacing:
    """The samples that were admitted so far, none nearer to another than the distance."""

    def __init__(self, distance: int, width: int) -> None:
        """Begin with no sample.

        Args:
            distance: the least max(|dx|, |dy|) between two samples, in pixels.
            width: columns of the raster.
        """
        self._distance = distance
        self._width = width
        # One more on either side, so that the neighbour of the first cell of a row is not the last of the row above.
        self._across = width // distance + 3
        self._cells = np.empty(0, dtype=np.int64)
        self._keys = np.empty(0, dtype=np.int64)

    def free(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Tell which pixels (``row * width + col``) are far enough from all samples."""
        return ~self._meets(keys, self._cells_of(keys), self._cells, self._keys)

    def admit(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Admit as many pixels as keep the distance, those that come first before others; tells which."""
        admitted = np.zeros(len(keys), dtype=bool)
        left = np.flatnonzero(self.free(keys))
        while len(left):
            # Of each cell the first; of these, those that come before all that they are too near to.
            cells, first = np.unique(self._cells_of(keys[left]), return_index=True)
            leaders = left[first]
            beaten = self._meets(keys[leaders], cells, cells, keys[leaders], leaders)
            won = leaders[~beaten]
            admitted[won] = True
            self._insert(cells[~beaten], keys[won])
            left = left[self.free(keys[left])]
        return admitted

    def _cells_of(self, keys: Keys) -> Keys:
        rows, cols = np.divmod(keys, self._width)
        return (rows // self._distance + 1) * self._across + cols // self._distance + 1

    def _insert(self, cells: Keys, keys: Keys) -> None:
        joined = np.concatenate([self._cells, cells])
        # Two sorted runs: the stable sort merges them.
        order = np.argsort(joined, kind="stable")
        self._cells, self._keys = joined[order], np.concatenate([self._keys, keys])[order]

    def _meets(
        self, keys: Keys, cells: Keys, other_cells: Keys, others: Keys, rank: Keys = np.empty(0, dtype=np.int64)
    ) -> npt.NDArray[np.bool_]:
        """Tell which keys are too near to one of the others, which are sorted by cell, one in a cell.

        With ``rank`` keys and others are the same, and only those of a lower rank count.
        """
        met = np.zeros(len(keys), dtype=bool)
        if len(others) == 0:
            return met
        rows, cols = np.divmod(keys, self._width)
        for down, across in _AROUND:
            wanted = cells + down * self._across + across
            place = np.minimum(np.searchsorted(other_cells, wanted), len(others) - 1)
            there = np.flatnonzero(other_cells[place] == wanted)
            place = place[there]
            far_rows, far_cols = np.divmod(others[place], self._width)
            apart = np.maximum(np.abs(far_rows - rows[there]), np.abs(far_cols - cols[there]))
            near = apart < self._distance
            if len(rank):
                near &= rank[place] < rank[there]
            met[there[near]] = True
        return met


def thin(
    spacing: Spacing, candidates: Mapping[int, Keys], wanted: Mapping[int, int], context: Context
) -> Dict[int, npt.NDArray[np.int64]]:
    """Return class -> places of the candidates that become samples, in the order of the candidates.

    Rare classes come first, as they have the fewest other pixels to give.

    Args:
        spacing: the samples so far; takes the new ones.
        candidates: class -> pixels, those that are wanted most first.
        wanted: class -> how many of them become samples at most.
        context: asked whether to go on.
    """
    ordered = sorted(candidates, key=lambda value: (len(candidates[value]), value))
    taken: Dict[int, List[npt.NDArray[np.int64]]] = {value: [] for value in ordered}
    missing = {value: wanted[value] for value in ordered}
    begin = dict.fromkeys(ordered, 0)
    while True:
        context.check()
        batch = {}
        for value in ordered:
            start = begin[value]
            stop = min(len(candidates[value]), start + max(_BATCH // len(ordered), 1))
            if missing[value] and start < stop:
                usable = start + np.flatnonzero(spacing.free(candidates[value][start:stop]))
                batch[value] = usable[: missing[value]]
                # Those that may not be needed are looked at again, if they are.
                begin[value] = int(usable[missing[value]]) if len(usable) > missing[value] else stop
        if not batch:
            break
        admitted = spacing.admit(np.concatenate([candidates[value][places] for value, places in batch.items()]))
        parts = np.split(admitted, np.cumsum([len(places) for places in batch.values()])[:-1])
        for (value, places), mask in zip(batch.items(), parts):
            taken[value].append(places[mask])
            missing[value] -= int(np.count_nonzero(mask))
    return {value: np.concatenate(parts) if parts else np.empty(0, np.int64) for value, parts in taken.items()}


def shuffled(count: int, seed: int, value: int, turn: int = 0) -> npt.NDArray[np.int64]:
    """Return the numbers below ``count`` in the order in which a class offers its candidates."""
    return np.random.default_rng([seed % 2**64, value % 2**64, turn]).permutation(count)


def thinned_sentence(distance: int, name: str, asked: int, got: int) -> str:
    """Return what is said of a class that gives fewer samples than were asked for."""
    return (
        f"Class {name} gives {got} of {asked} samples: its other pixels lie nearer than MIN_DISTANCE {distance} to a "
        "sample. Ask for fewer, or for a smaller distance."
    )
