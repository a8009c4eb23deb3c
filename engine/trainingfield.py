"""Where the samples that a map's model learned from lie, to count or leave out the reference pixels that they hold.

The model's card tells it (`trainingground`), of models of older versions the patch dataset that the job file beside the
model names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS

from ..models.cards import Card, read_card
from ..tasks import jobfiles
from ..tasks.context import Context
from ..tasks.errors import DeepscapeError
from ..tasks.jobs import Assess, Classify, Job, TrainClassifier, TrainRandomForest, TrainSegmenter
from .betweengrids import way_between
from .datasets import PatchDataset
from .rasters import Grid
from .trainingground import Ground, coverage, patch_ground, read_grounds

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Pixels of a coverage held at once.
_STRIP_PIXELS = 4_000_000


# --- what is known ---------------------------------------------------------------------------------------------------


def training_field(job: Assess, grid: Grid, context: Context) -> TrainingField:
    """Return where the samples of a map's model lie: of TRAINING, else as far as the files beside the map tell it.

    Raises:
        BadInput: TRAINING cannot be read, or the card of the model is not as Deepscape writes it.
    """
    if job.training:
        ground, nowhere = _ground_of_dataset(job.training), f"where the patches of '{job.training}' lie is not known"
        if ground.known:
            return TrainingField([ground], grid, context)
        context.warn(f"{nowhere[0].upper()}{nowhere[1:]}: reference pixels inside them were not looked for.")
        return TrainingField([], grid, context, (nowhere,))
    models, reason = _models_of_map(job.map.path)
    grounds: List[Ground] = []
    unknown = [reason] if reason else []
    cards = [read_card(model) for model in models]
    for model, card in zip(models, cards):
        found, missing = _grounds_of_model(model, card, context)
        grounds += found
        unknown += missing
    if grounds and unknown:
        context.warn(
            f"Where the model of the map learned is known in part only: {'; '.join(unknown)}. Reference pixels there "
            "were not looked for."
        )
    windows = bool(cards) and all(card.output == "pixels" for card in cards)
    return TrainingField(grounds, grid, context, tuple(unknown), windows, _labelled(cards) if windows else None)


def _labelled(cards: Sequence[Card]) -> Optional[int]:
    """Return how many labelled pixels the only model was trained and validated on; None where that is not all."""
    if len(cards) != 1 or cards[0].settings.get("initial_model"):
        return None
    counts = cards[0].training.get("counts")
    used = [counts.get(role, {}) for role in ("training", "validation")] if isinstance(counts, Mapping) else []
    numbers: List[Any] = [number for role in used for number in role.values()]
    return sum(numbers) or None


def _models_of_map(path: str) -> Tuple[List[str], str]:
    """Return the models that made a map, or why they are not known: no job file tells it, or they are later ones."""
    mapping = _job_of(path)
    if not isinstance(mapping, Classify):
        return [], "no job file beside the map tells its model"
    models = [mapping.model, *mapping.more_models]
    mapped = jobfiles.written_at(jobfiles.job_file_name(path))
    for model in models:
        name = Path(model).name
        try:
            created = read_card(model).created
        except (DeepscapeError, OSError):
            return [], f"its model '{name}' cannot be read any more"
        if mapped and created > mapped:
            return [], f"its model '{name}' was trained anew since"
    return models, ""


def _grounds_of_model(model: str, card: Card, context: Context) -> Tuple[List[Ground], List[str]]:
    """Return the ground that a model learned from, and the names of what is not known of it."""
    training = card.training
    if "field" in training:
        grounds, unknown = read_grounds(training)
        if grounds:
            context.log(f"Where '{Path(model).name}' learned, its card tells: {_told(grounds)}.")
        name = Path(model).name
        return grounds, [f"the card of '{name}' does not tell where '{missing}' lies" for missing in unknown]
    folder = dataset_of_model(model)
    ground = _ground_of_dataset(folder) if folder else None
    if ground is None or not ground.known:
        return [], [f"the model '{Path(model).name}' does not tell where it learned"]
    context.log(f"The model of the map was trained on '{folder}', as the files beside it tell.")
    return [ground], []


def _told(grounds: Sequence[Ground]) -> str:
    names = ", ".join(sorted({ground.scene.label for ground in grounds}))
    cell = max(ground.cell for ground in grounds)
    return names if cell == 1 else f"{names}, within {cell} of their pixels"


def dataset_of_model(model: str) -> str:
    """Return the patch dataset that a model without a field in its card learned from; empty where it is not known.

    The job file beside the model names it, and the model's card what it held: another one of that name is not it.
    """
    training = _job_of(model)
    if not isinstance(training, (TrainClassifier, TrainSegmenter, TrainRandomForest)) or training.more_datasets:
        return ""
    folder = training.training
    try:
        known = read_card(model).training.get("datasets", {}).get("training", {}).get("hash")
        return folder if folder and known and PatchDataset(folder).content_hash() == known else ""
    except (DeepscapeError, OSError):  # the model or the dataset has gone, or is no longer what it was
        return ""


def _ground_of_dataset(folder: str) -> Ground:
    """Return the ground of a dataset's patches for training and validation, not test."""
    dataset = PatchDataset(folder)
    used, size = dataset.splits != "test", dataset.description.sources[0].patch_size
    return patch_ground(dataset.description.scene, dataset.rows[used], dataset.cols[used], size)


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


# --- which pixels lie in it ------------------------------------------------------------------------------------------


class TrainingField:
    """Where the samples that a model learned from (training and validation, not test) took their pixels.

    Attributes:
        known: whether anything is known of it.
        unknown: what is not known of it, in words.
        windows: it is whole windows, of whose pixels only some may have carried a label.
        labelled: labelled pixels that the training counted in them; None: not known.
    """

    def __init__(
        self,
        grounds: Sequence[Ground],
        grid: Grid,
        context: Context,
        unknown: Tuple[str, ...] = (),
        windows: bool = False,
        labelled: Optional[int] = None,
    ) -> None:
        """Bring the ground onto the grid of a map.

        Args:
            grounds: boxes of scenes.
            grid: of the map.
            context: takes the warnings.
            unknown: what is not known, in words.
            windows: the grounds are whole windows.
            labelled: labelled pixels that the training counted in them.
        """
        self.known, self.unknown = bool(grounds), unknown
        self.windows, self.labelled = windows, labelled
        self._parts = [_Part(ground, grid, context) for ground in grounds]

    def holds(self, rows: Indices, cols: Indices) -> Mask:
        """Tell which pixels of the map have their centre inside a patch or window, ``(N,)``."""
        held = np.zeros(len(rows), bool)
        for part in self._parts:
            rest = np.flatnonzero(~held)
            held[rest] = part.holds(rows[rest], cols[rest])
        return held


class _Part:
    """The ground of one scene, and the way from the map to it."""

    def __init__(self, ground: Ground, grid: Grid, context: Context) -> None:
        scene = ground.scene
        self._grid = grid
        self._theirs = Grid(
            scene.width, scene.height, Affine(*scene.transform), CRS.from_wkt(scene.crs) if scene.crs else None
        )
        self._way = way_between(grid.crs, self._theirs.crs, "the map", scene.label, context)
        self._boxes = ground.boxes

    def holds(self, rows: Indices, cols: Indices) -> Mask:
        """Tell which pixels of the map have their centre inside a box, ``(N,)``."""
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
        wide = int(high[1] - low[1])
        deep = max(1, _STRIP_PIXELS // wide)
        inside = np.zeros(len(r), bool)
        for top in range(int(r.min()), int(r.max()) + 1, deep):
            here = (r >= top) & (r < top + deep)
            if here.any():
                last = min(deep, int(r[here].max()) - top + 1)
                inside[here] = self._coverage(top, int(low[1]), last, wide)[r[here] - top, c[here] - low[1]]
        held[near] = inside
        return held

    def _coverage(self, top: int, left: int, height: int, width: int) -> Mask:
        """Return which pixels of a window boxes cover."""
        inside = np.clip(self._boxes - np.array([top, left, top, left]), 0, np.array([height, width, height, width]))
        return coverage(inside, (height, width))
