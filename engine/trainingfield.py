"""Where the patches that a model learned from lie, to count the reference pixels that they have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from ..models.cards import read_card
from ..tasks import jobfiles
from ..tasks.context import Context
from ..tasks.errors import DeepscapeError
from ..tasks.jobs import Classify, Job, TrainClassifier, TrainRandomForest, TrainSegmenter
from .datasets import PatchDataset
from .denselabels import way_between
from .rasters import Grid

Indices = npt.NDArray[np.int64]

# Pixels of a coverage held at once.
_STRIP_PIXELS = 4_000_000


def training_of_map(path: str) -> str:
    """Return the patch dataset that the model of a map learned from, as far as the files beside the map tell it.

    The job file beside the map names the model, the one beside the model the dataset, and the model's card what the
    dataset held: another one of that name is not it. Empty where one of them is missing, as of a map made elsewhere.
    """
    mapping = _job_of(path)
    if not isinstance(mapping, Classify) or mapping.more_models:
        return ""
    training = _job_of(mapping.model)
    if not isinstance(training, (TrainClassifier, TrainSegmenter, TrainRandomForest)) or training.more_datasets:
        return ""
    folder = training.training
    try:
        known = read_card(mapping.model).training.get("datasets", {}).get("training", {}).get("hash")
        return folder if folder and known and PatchDataset(folder).content_hash() == known else ""
    except (DeepscapeError, OSError):  # the model or the dataset has gone, or is no longer what it was
        return ""


def _job_of(output: str) -> Optional[Job]:
    """Return the job that made a file, from the job file beside it; None where there is none."""
    file = jobfiles.job_file_name(output)
    if not Path(output).exists() or not Path(file).is_file():
        return None
    try:
        job = jobfiles.read_job_file(file)
    except DeepscapeError:  # of a newer version
        return None
    made = {Path(path).resolve() for path in jobfiles.output_paths(job).values()}
    return job if Path(output).resolve() in made else None


def training_field(folder: str, grid: Grid, context: Context) -> Optional[TrainingField]:
    """Return where the training patches lie; None, with a warning, for imported ones, of which nobody knows it."""
    if PatchDataset(folder).description.scene.width == 0:
        context.warn(
            f"Where the patches of '{folder}' lie is not known: reference pixels inside them were not looked for."
        )
        return None
    return TrainingField(folder, grid, context)


class TrainingField:
    """Where the patches that a model learned from (training and validation, not test) took their pixels."""

    def __init__(self, folder: str, grid: Grid, context: Context) -> None:
        dataset = PatchDataset(folder)
        scene = dataset.description.scene
        self._grid = grid
        self._theirs = Grid(
            scene.width, scene.height, Affine(*scene.transform), CRS.from_wkt(scene.crs) if scene.crs else None
        )
        self._way = way_between(grid.crs, self._theirs.crs, "the map", scene.label, context)
        size = dataset.description.sources[0].patch_size
        used = dataset.splits != "test"
        tops, lefts = dataset.rows[used] - size // 2, dataset.cols[used] - size // 2
        self._boxes = np.stack([tops, lefts, tops + size, lefts + size], axis=1)

    def holds(self, rows: Indices, cols: Indices) -> npt.NDArray[np.bool_]:
        """Tell which pixels of the map have their centre inside a patch, ``(N,)``."""
        held = np.zeros(len(rows), bool)
        if not len(rows) or not len(self._boxes):
            return held
        x, y = self._grid.centres_of(rows, cols)
        if self._way is not None:
            x, y = self._way.transform(x, y)
        finite = np.isfinite(x) & np.isfinite(y)
        theirs_row, theirs_col = self._theirs.pixels_of(np.where(finite, x, -1e9), np.where(finite, y, -1e9))
        low = self._boxes[:, :2].min(axis=0)
        high = self._boxes[:, 2:].max(axis=0)
        near = finite & (theirs_row >= low[0]) & (theirs_row < high[0])
        near &= (theirs_col >= low[1]) & (theirs_col < high[1])
        if not near.any():
            return held
        r, c = theirs_row[near], theirs_col[near]
        deep = max(1, _STRIP_PIXELS // int(high[1] - low[1]))
        inside = np.zeros(len(r), bool)
        for top in range(int(r.min()), int(r.max()) + 1, deep):
            here = (r >= top) & (r < top + deep)
            if here.any():
                covered = self._coverage(top, int(low[1]), deep, int(high[1] - low[1]))
                inside[here] = covered[r[here] - top, c[here] - low[1]]
        held[near] = inside
        return held

    def _coverage(self, top: int, left: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        """Return which pixels of a window patches cover: +1 and -1 at their corners, summed along both axes."""
        boxes = np.clip(self._boxes - [top, left, top, left], 0, [height, width, height, width])
        steps = np.zeros((height + 1, width + 1), np.int32)
        for row, col, sign in ((0, 1, 1), (0, 3, -1), (2, 1, -1), (2, 3, 1)):
            np.add.at(steps, (boxes[:, row], boxes[:, col]), sign)
        return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)
