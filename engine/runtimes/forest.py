"""A Random Forest on the features of whole blocks, without torch and scikit-learn."""

from __future__ import annotations

import numpy as np

from ...tasks.context import Context
from ..features import as_rows, forest_features
from ..nodearrays import Forest
from .base import Floats, Mask, Model, Positions, cores, first_largest, geometry_of


class ForestRuntime:
    """See `Runtime`; its scores are probabilities."""

    exact = False

    def __init__(self, model: Model, context: Context) -> None:
        card = model.card
        self.name = "random forest"
        self.device = "cpu"
        self.precision = "full"
        self.geometry = geometry_of(card)
        self.beside = cores(context)
        self._forest: Forest = model.forest()
        self._context = context
        self._kind = str(card.arguments.get("features", "pixel"))
        self._patch_size = card.sources[0].patch_size
        self._fill = np.array([band.mean for band in card.sources[0].bands], dtype=np.float64)
        self._classes = len(card.classes)
        bands = len(self._fill)
        # float64: a window's features need seven copies of the bands besides them; then shares, and features as rows.
        self.bytes_per_pixel = 8.0 * (bands * (11 if self._kind == "window" else 2) + 2 * self._classes)

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        return first_largest(self.scores(values, wanted, whole))

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`."""
        features, shape = as_rows(forest_features(self._kind, values, self._patch_size, self._fill))
        scores = np.zeros((wanted.size, self._classes))
        chosen = wanted.reshape(-1)
        scores[chosen] = self._forest.predict_proba(features[chosen], self._context.check)
        return np.moveaxis(scores.reshape(*shape, -1), -1, 0)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return scores
