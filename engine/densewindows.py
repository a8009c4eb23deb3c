"""Training windows straight from a raster and its labels, read while the network learns: nothing is extracted.

Training windows lie at random places, drawn from seed, epoch and number alone, wholly inside the area that trains, and
begin where labelled pixels are near. Validation and test windows lie on a fixed grid, and every labelled pixel of their
area is scored exactly once. Where no areas are given, blocks of the raster validate; no training window touches them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.recipes import PRESETS
from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import RasterSource, TrainSegmenter
from .areas import (
    ROLES,
    TEST,
    TRAINING,
    VALIDATION,
    Areas,
    BlockAreas,
    Crossing,
    PolygonAreas,
    WholeArea,
    Window,
    counts_by_role,
)
from .datasets import DatasetScene, DatasetSource
from .denselabels import BACKGROUND, DenseLabels
from .denseparts import IGNORED, DenseRoles, Floats, Targets, check_classes, is_binary, without
from .labelsources import open_labels
from .metrics import class_positions
from .nodatasamples import tell_of_losses
from .patchreading import dataset_bands, dataset_scene, plan_source, warn_of_alpha
from .rasters import RasterReader, reading
from .trainingground import Ground, coverage, mask_ground
from .validationparts import balanced_groups

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FEWEST_WINDOWS, _MOST_WINDOWS = 64, 2000
# The training area is known by cells of a window's side divided by this; windows begin anywhere.
_CELLS = 8
_TRIES = 8
# Where no areas are given: at least so many blocks, each of two windows' side or more.
_FEWEST_BLOCKS = 20
_BLOCK_WINDOWS = 2
_STRIP_PIXELS = 2_000_000


class WindowReader:
    """A raster and its labels, read together by window; threads may share it.

    Attributes:
        raster: the image.
        rule: what its no-data numbers count as, see `RasterReader.read`.
        classes: the class table; empty until it is known.
        scene: what the card says of the image.
    """

    def __init__(self, raster: RasterReader, labels: DenseLabels, rule: str, scene: DatasetScene) -> None:
        self.raster, self.rule, self.classes, self.scene = raster, rule, tuple[ClassEntry, ...](), scene
        self._labels = labels

    def read(self, window: Window) -> Tuple[Floats, Targets]:
        """Return physical values ``(C, H, W)``, NaN where no-data, and class positions ``(H, W)``."""
        raw, valid = self.raster.read_known(*window, self.rule)
        values: Floats = np.array(self.raster.physical(raw), np.float32)
        targets = self.targets(window)
        if valid is not None:
            values[~valid] = np.nan
            targets[~valid.all(axis=0)] = IGNORED
        return values, targets

    def lacking(self, window: Window) -> Optional[Mask]:
        """Return where the image has no data ``(H, W)``; None where it has data everywhere."""
        valid = self.raster.read_known(*window, self.rule)[1]
        return None if valid is None else np.asarray(~valid.all(axis=0))

    def targets(self, window: Window) -> Targets:
        """Return class positions ``(H, W)`` by the labels alone."""
        found, known = self._labels.read(*window)
        return np.where(known, class_positions(found, self.classes), IGNORED)

    def ground(
        self, areas: Areas, role: int, cells: npt.NDArray[np.bool_], side: int, check: Callable[[], None]
    ) -> List[Ground]:
        """Return the pixels of a role that lie in cells ``(R, C)`` of ``side`` pixels."""
        grid = self.raster.grid
        deep = max(1, _STRIP_PIXELS // grid.width // side) * side

        def strips() -> Iterator[Tuple[int, npt.NDArray[np.bool_]]]:
            for row in range(0, grid.height, deep):
                check()
                height = min(deep, grid.height - row)
                chosen = cells[row // side : -(-(row + height) // side)]
                inside = chosen.repeat(side, axis=0)[:height].repeat(side, axis=1)[:, : grid.width]
                yield row, inside & (areas.read((row, 0, height, grid.width)) == role)

        return [mask_ground(self.scene, strips())]


@dataclass(frozen=True, eq=False)
class RandomWindows:
    """The windows that train; see `DensePart`.

    Attributes:
        reader: of image and labels.
        areas: what trains.
        starts: row and column of cells where a window lies inside the training area and holds labels ``(M, 2)``.
        cell: pixels on a side of a cell.
        size: pixels on a side of a window.
        count: windows of an epoch.
        seed: of the job.
        pixels: labelled pixels of each class in the area ``(K,)``.
    """

    reader: WindowReader
    areas: Areas
    starts: Counts
    cell: int
    size: int
    count: int
    seed: int
    pixels: Counts

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: Sequence[int], epoch: int = 0) -> Tuple[Floats, Targets]:
        """Return the windows of an epoch."""
        found = [self.reader.read(self.place(int(number), epoch)) for number in numbers]
        return np.stack([values for values, _ in found]), np.stack([targets for _, targets in found])

    def place(self, number: int, epoch: int) -> Window:
        """Return row, column, height and width of a window; all of it trains, and some of it is labelled."""
        chance = np.random.default_rng([self.seed, epoch, number])
        grid = self.reader.raster.grid
        row, col = self.starts[chance.integers(len(self.starts))]
        for _ in range(_TRIES):
            down, across = row + chance.integers(self.cell), col + chance.integers(self.cell)
            window = (
                int(min(down, grid.height - self.size)), int(min(across, grid.width - self.size)), self.size, self.size
            )  # fmt: skip
            if bool((self.areas.read(window) == TRAINING).all()) and bool((self.reader.targets(window) >= 0).any()):
                return window
        return int(row), int(col), self.size, self.size

    def facts(self) -> Dict[str, Any]:
        """Return the image's name and size, and the number of windows."""
        return _facts(self.reader, self.count, "random windows of an epoch")

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return what of the training area windows may hold."""
        grid, across = self.reader.raster.grid, self.size // self.cell
        shape = -(-grid.height // self.cell), -(-grid.width // self.cell)
        # A window begins anywhere in its cell, and so may end one cell later.
        first = self.starts // self.cell
        ends = np.minimum(first + across + (self.cell > 1), shape)
        return self.reader.ground(self.areas, TRAINING, coverage(np.hstack([first, ends]), shape), self.cell, check)


@dataclass(frozen=True, eq=False)
class FixedWindows:
    """The windows that validate or test; see `DensePart`.

    Attributes:
        reader: of image and labels.
        areas: which pixels have which role.
        role: that of these windows.
        places: row and column of the windows ``(N, 2)``, multiples of the size, but for those at the raster's end.
        size: pixels on a side of a window.
        crossing: features that are not scored.
        pixels: labelled pixels of each class ``(K,)``.
    """

    reader: WindowReader
    areas: Areas
    role: int
    places: Counts
    size: int
    crossing: Optional[Crossing]
    pixels: Counts

    def __len__(self) -> int:
        return len(self.places)

    def read(self, numbers: Sequence[int], epoch: int = 0) -> Tuple[Floats, Targets]:
        """Return windows; they are the same in every epoch."""
        found = [self._one(int(number)) for number in numbers]
        return np.stack([values for values, _ in found]), np.stack([targets for _, targets in found])

    def _one(self, number: int) -> Tuple[Floats, Targets]:
        row, col = (int(start) for start in self.places[number])
        grid = self.reader.raster.grid
        # At the raster's end a window begins earlier, so that it lies inside; what the one before it has is not scored
        # again. In a raster smaller than a window the rest is reflected, and has no label.
        top, left = max(0, min(row, grid.height - self.size)), max(0, min(col, grid.width - self.size))
        window = (top, left, self.size, self.size)
        values, targets = self.reader.read(window)
        targets = scored(targets, window, self.areas, self.role, self.crossing)
        targets[: row - top] = IGNORED
        targets[:, : col - left] = IGNORED
        return values, targets

    def facts(self) -> Dict[str, Any]:
        """Return the image's name and size, and the number of windows."""
        return _facts(self.reader, len(self.places), f"{ROLES[self.role]} windows")

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return what of their area the windows hold."""
        grid = self.reader.raster.grid
        tiles = np.zeros((-(-grid.height // self.size), -(-grid.width // self.size)), bool)
        tiles[tuple((self.places // self.size).T)] = True
        return self.reader.ground(self.areas, self.role, tiles, self.size, check)


def scored(targets: Targets, window: Window, areas: Areas, role: int, crossing: Optional[Crossing]) -> Targets:
    """Return the targets of one role, without features that cross an area's border."""
    targets = np.where(areas.read(window) == role, targets, IGNORED)
    across = None if crossing is None else crossing.read(window)
    if across is not None:
        targets[across] = IGNORED
    return targets


def _facts(reader: WindowReader, windows: int, what: str) -> Dict[str, Any]:
    grid = reader.raster.grid
    return {"name": f"{reader.raster.name} ({what})", "windows": windows, "raster": [grid.width, grid.height]}


@contextlib.contextmanager
def window_roles(job: TrainSegmenter, context: Context) -> Iterator[DenseRoles]:
    """Open a raster with its labels, and find the windows of every role; the files stay open inside the block.

    Raises:
        BadInput: raster or labels cannot be used, no window fits into the training area, or less than two classes are
            labelled.
    """
    source = job.source
    if source is None:
        raise ValueError("windows are read from a raster")
    with (
        reading(source) as raster,
        open_labels(
            job.labels,
            job.label_features,
            job.label_field,
            raster.grid,
            raster.name,
            context,
            legend=job.legend,
            background=job.background,
        ) as labels,
    ):
        yield _Opening(job, source, raster, labels, context).roles()


class _Opening:
    """Finds the windows of all roles: one pass over the labels, then one choice."""

    def __init__(
        self, job: TrainSegmenter, source: RasterSource, raster: RasterReader, labels: DenseLabels, context: Context
    ) -> None:
        self._job, self._raster, self._labels, self._context = job, raster, labels, context
        warn_of_alpha(raster, context)
        self._plan = plan_source(1, raster, job.nodata_rule, 0.0)
        self._reader = WindowReader(raster, labels, self._plan.rule, dataset_scene(raster, source))
        self._size = job.patch_size
        grid = raster.grid
        if min(grid.height, grid.width) < self._size:
            raise BadInput(
                f"PATCH_SIZE is {self._size} pixels, larger than '{raster.name}' ({grid.width} x {grid.height}).",
                "Give a smaller PATCH_SIZE.",
            )
        self._cell = _cell_of(self._size)
        self._notes: List[str] = []
        # Pixels of each role's area.
        self._area = {role: 0 for role in (TRAINING, VALIDATION, TEST)}

    def roles(self) -> DenseRoles:
        """Return them."""
        drawn = self._drawn_areas()
        bands = dataset_bands(self._plan, False, self._context)
        self._find_classes()
        areas, crossing = self._areas(drawn)
        counts, places, starts = self._survey(areas, crossing)
        if drawn is not None:
            self._tell_of_areas(drawn, counts)
        if not len(starts):
            raise BadInput(
                f"No window of {self._size} pixels lies inside a training area and holds a labelled pixel.",
                "Give a smaller PATCH_SIZE, or larger areas.",
            )
        training = RandomWindows(
            self._reader, areas, starts, self._cell, self._size, self._windows(len(starts)),
            self._job.seed, counts[TRAINING],
        )  # fmt: skip
        fixed = {
            role: FixedWindows(self._reader, areas, role, places[role], self._size, crossing, counts[role])
            for role in (VALIDATION, TEST)
            if counts[role].any()
        }
        for note in self._notes:
            self._context.log(note)
        roles = DenseRoles(
            self._reader.classes, training, fixed.get(VALIDATION), fixed.get(TEST),
            DatasetSource("", self._size, str(self._raster.dtype), bands, self._plan.rule),
            self._reader.scene, (self._raster.name,), 0, tuple(self._notes),
        )  # fmt: skip
        check_classes(roles, self._labels.name, self._context)
        return roles

    def _find_classes(self) -> None:
        """Read all labels once, so that the class table is known; that of features is known, and checked, before."""
        if self._job.label_features is not None:
            self._take_classes()
        for window in self._strips("looking at the labels"):
            self._labels.read(*window)
        self._labels.finish(self._context)
        self._take_classes()

    def _take_classes(self) -> None:
        self._reader.classes = without(self._labels.classes, self._job.ignore_class)
        is_binary(self._job, self._reader.classes)  # refuses what does not go with them, before more is read

    def _strips(self, stage: str) -> Iterator[Window]:
        """Yield windows of whole cells that cover the raster, row by row."""
        grid, cell = self._raster.grid, self._cell
        down = max(cell, _STRIP_PIXELS // grid.width // cell * cell)
        for row in range(0, grid.height, down):
            self._context.check()
            self._context.progress(row, grid.height, stage, "rows")
            yield row, 0, min(down, grid.height - row), grid.width
        self._context.progress(grid.height, grid.height, stage, "rows")

    # --- areas ---

    def _drawn_areas(self) -> Optional[PolygonAreas]:
        """Return the areas that polygons give; None without. They need no labels, and are checked before these."""
        job, raster = self._job, self._raster
        if job.areas is None:
            return None
        areas = PolygonAreas(job.areas, job.area_field, raster.grid, raster.name, self._context)
        if areas.roles == {"training"}:
            self._context.warn("The areas hold none for validation: the last epoch is kept, and nothing is judged.")
        return areas

    def _areas(self, drawn: Optional[PolygonAreas]) -> Tuple[Areas, Optional[Crossing]]:
        job, raster = self._job, self._raster
        if job.areas is not None and drawn is not None:
            if job.label_features is None:
                return drawn, None
            crossing = Crossing(job.label_features, job.areas, raster.grid, raster.name)
            if crossing.count:
                self._notes.append(f"{crossing.count} label features cross an area's border: they are not scored.")
            return drawn, crossing
        if job.validation_share <= 0:
            return WholeArea(), None
        return self._blocks(), None

    def _tell_of_areas(self, drawn: PolygonAreas, counts: Dict[int, Counts]) -> None:
        """Warn of areas for validation and test that nothing can be judged in.

        Args:
            drawn: the areas.
            counts: labelled pixels of each class ``(K,)``, by role.

        Raises:
            BadInput: the areas for training lie beside the image.
        """
        image, name = self._raster.name, drawn.name
        if not self._area[TRAINING]:
            raise BadInput(
                f"No area for training of '{name}' lies on '{image}'.",
                "Check that both cover the same place and that the CRS of each is right.",
            )
        for role, result in (
            (VALIDATION, "no epoch is chosen, and the last one is kept"), (TEST, "the model is not tested"),
        ):  # fmt: skip
            if ROLES[role] not in drawn.roles or counts[role].any():
                continue
            why = f"holds no labelled pixel of '{self._labels.name}'" if self._area[role] else f"lies beside '{image}'"
            self._context.warn(f"The area for {ROLES[role]} of '{name}' {why}: {result}.")

    def _blocks(self) -> Areas:
        """Return the areas where blocks of the raster validate: the share of every class, as far as blocks allow."""
        grid, classes = self._raster.grid, len(self._reader.classes)
        side = _BLOCK_WINDOWS * self._size
        if (grid.height // side) * (grid.width // side) < _FEWEST_BLOCKS:
            side = self._size
        while (grid.height // (2 * side)) * (grid.width // (2 * side)) >= 4 * _FEWEST_BLOCKS:
            side *= 2
        shape = -(-grid.height // side), -(-grid.width // side)
        table = np.zeros((*shape, classes), np.int64)
        for window in self._strips("dividing the image"):
            targets = self._reader.targets(window)
            rows, cols = np.nonzero(targets >= 0)
            key = ((rows + window[0]) // side * shape[1] + cols // side) * classes + targets[rows, cols]
            table += np.bincount(key, minlength=table.size).reshape(table.shape)
        used = table.reshape(-1, classes).any(axis=1)
        validating = np.zeros(shape, bool).reshape(-1)
        validating[used] = balanced_groups(table.reshape(-1, classes)[used], self._job.validation_share, self._job.seed)
        if not validating.any():
            self._notes.append("The labels lie too close together to hold blocks back for validation: there are none.")
        else:
            self._notes.append(
                f"{int(validating.sum())} of {int(used.sum())} blocks of {side} x {side} pixels are held back for "
                "validation."
            )
        return BlockAreas(side, validating.reshape(shape))

    # --- windows ---

    def _survey(
        self, areas: Areas, crossing: Optional[Crossing]
    ) -> Tuple[Dict[int, Counts], Dict[int, Counts], Counts]:
        """Return labelled pixels by role, the fixed windows by role, and where training windows may begin."""
        grid, cell, classes = self._raster.grid, self._cell, len(self._reader.classes)
        shape = -(-grid.height // cell), -(-grid.width // cell)
        inside, labelled = np.zeros(shape, bool), np.zeros(shape, np.int64)
        tiles = -(-grid.height // self._size), -(-grid.width // self._size)
        held = {role: np.zeros(tiles, bool) for role in (VALIDATION, TEST)}
        counts = {role: np.zeros(classes, np.int64) for role in (TRAINING, VALIDATION, TEST)}
        lost = np.zeros(classes, np.int64)
        for window in self._strips("finding windows"):
            row, height = window[0], window[2]
            codes, targets = areas.read(window), self._reader.targets(window)
            across = None if crossing is None else crossing.read(window)
            if across is not None:
                targets = np.where(across & (codes != TRAINING), IGNORED, targets)
            empty = self._reader.lacking(window)
            if empty is not None:
                lost += sum(counts_by_role(codes, np.where(empty, targets, IGNORED), classes).values())
                targets[empty] = IGNORED
            for role, found in counts_by_role(codes, targets, classes).items():
                counts[role] += found
            for role in self._area:
                self._area[role] += int(np.count_nonzero(codes == role))
            trains = codes == TRAINING
            first, last = row // cell, -(-(row + height) // cell)
            inside[first:last] = _by_cell(trains, cell).astype(np.int64) == _by_cell(np.ones_like(trains), cell)
            labelled[first:last] = _by_cell(trains & (targets >= 0), cell)
            for role, tile in held.items():
                rows, cols = np.nonzero((codes == role) & (targets >= 0))
                tile[(rows + row) // self._size, cols // self._size] = True
        self._tell_of_no_data(lost, lost + sum(counts.values()))
        places = {role: np.argwhere(tile) * self._size for role, tile in held.items()}
        return counts, places, self._starts(inside, labelled)

    def _tell_of_no_data(self, lost: Counts, labelled: Counts) -> None:
        """Tell of the labelled pixels of each class ``(K,)`` where the image has no data, but for background."""
        named = {
            entry.value: number
            for number, entry in enumerate(self._reader.classes)
            if not (self._job.background and entry.value == BACKGROUND.value)
        }
        tell_of_losses(
            f"labelled pixels lie where '{self._raster.name}' has no data and are left out",
            {value: int(lost[number]) for value, number in named.items()},
            {value: int(labelled[number]) for value, number in named.items()},
            self._reader.classes,
            "Check that labels and image cover the same place, and NODATA and NODATA_RULE.",
            self._context,
        )

    def _starts(self, inside: npt.NDArray[np.bool_], labelled: Counts) -> Counts:
        """Return row and column of the cells where a window lies inside the training area and holds labels."""
        grid, cell = self._raster.grid, self._cell
        across = self._size // cell
        # Cells at the raster's end may be cut: a window that begins there would reach over it.
        inside[grid.height // cell :], inside[:, grid.width // cell :] = False, False
        if min(inside.shape) < across:
            return np.empty((0, 2), np.int64)
        view = np.lib.stride_tricks.sliding_window_view
        whole = view(inside, (across, across)).all(axis=(2, 3))
        some = view(labelled, (across, across)).sum(axis=(2, 3)) > 0
        return np.argwhere(whole & some) * cell

    def _windows(self, starts: int) -> int:
        """Return the windows of an epoch: the job's, the recipe's, or so many that they cover the area twice."""
        wanted = self._job.windows or PRESETS[self._job.recipe].windows
        if wanted is not None:
            return wanted
        area = starts * self._cell**2
        return int(np.clip(2 * area // self._size**2, _FEWEST_WINDOWS, _MOST_WINDOWS))


def _cell_of(size: int) -> int:
    """Return the largest divisor of a window's side up to an eighth of it; the side itself where that is tiny."""
    best = max(number for number in range(1, max(size // _CELLS, 1) + 1) if size % number == 0)
    return best if best * 4 * _CELLS >= size else size


def _by_cell(mask: npt.NDArray[np.bool_], cell: int) -> Counts:
    """Return how many pixels of each cell are True ``(ceil(H / cell), ceil(W / cell))``; cells at the end are cut."""
    rows = np.add.reduceat(mask, np.arange(0, mask.shape[0], cell), axis=0, dtype=np.int64)
    return np.asarray(np.add.reduceat(rows, np.arange(0, mask.shape[1], cell), axis=1))
