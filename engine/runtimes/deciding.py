"""How a class follows from probabilities where it is not simply the largest: other priors, and a threshold.

A network learns how frequent classes are where it learns. Where they are more or less frequent in the scene, its
probabilities are corrected by Bayes' rule: times the new share over the old one, and normalised again. A binary model
maps its second class from a threshold on.
"""

from __future__ import annotations

from typing import Iterable, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ...models.cards import Card
from ...tasks.errors import BadInput
from ..wording import as_given
from .base import Floats, Mask, Positions, Runtime, first_largest

Shares = npt.NDArray[np.float64]

# So that "from the threshold on" holds for what is equal to it, whatever float32 makes of the logarithms.
_FROM = 1e-6
_ROUNDS = 200
_SETTLED = 1e-7


class DecidingRuntime:
    """See `Runtime`; the scores are logarithms of the corrected probabilities, shifted by the threshold."""

    exact: bool

    def __init__(self, inner: Runtime, ratios: Optional[Shares], threshold: Optional[float]) -> None:
        """Wrap a runtime.

        Args:
            inner: gives scores and probabilities.
            ratios: new share over old share of each class ``(K,)``; None = 1.
            threshold: of two classes: probability from which the second is mapped; None = the larger one.
        """
        self.name, self.device, self.precision = inner.name, inner.device, inner.precision
        self.geometry, self.beside, self.exact = inner.geometry, inner.beside, inner.exact
        self.bytes_per_pixel = 1.5 * inner.bytes_per_pixel
        self._inner = inner
        self._ratios = None if ratios is None else np.asarray(ratios, np.float32)[:, None, None]
        self._shift = np.zeros((1, 1, 1), np.float32)
        if threshold is not None:
            share = min(max(threshold, 1e-9), 1 - 1e-9)
            self._shift = np.array([0.0, np.log((1 - share) / share) + _FROM], np.float32)[:, None, None]

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        return first_largest(self.scores(values, wanted, whole))

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`."""
        found = self._inner.probabilities(self._inner.scores(values, wanted, whole)).astype(np.float32, copy=False)
        if self._ratios is not None:
            found = found * self._ratios
            found /= np.maximum(found.sum(axis=0), np.finfo(np.float32).tiny)
        # A pixel that is not wanted has no probabilities.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(found) + self._shift)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return np.exp(scores - self._shift)


def check_threshold(threshold: Optional[float], cards: Sequence[Card]) -> Optional[float]:
    """Return the threshold that is mapped by: the job's, else the mean of the models'; None for the larger probability.

    A model without one maps its second class from 0.5 on. Probabilities of several models are their mean, too.

    Raises:
        BadInput: a threshold is given for a model of other than two classes.
    """
    if threshold is not None and len(cards[0].classes) != 2:
        raise BadInput(
            f"THRESHOLD is {as_given(threshold)}, but the model has {len(cards[0].classes)} classes.",
            "Leave THRESHOLD empty: it parts two classes.",
        )
    if threshold is not None or all(card.threshold is None for card in cards):
        return threshold
    own = [0.5 if card.threshold is None else card.threshold for card in cards]
    return own[0] if len(set(own)) == 1 else sum(own) / len(own)


def learned_shares(card: Card) -> Shares:
    """Return the shares of the classes that a model takes for granted ``(K,)``.

    What the card tells; else equal ones where rare classes counted as much as frequent ones, and those of the training
    samples where they did not.

    Raises:
        BadInput: the card does not tell.
    """
    classes = len(card.classes)
    told = card.settings.get("learned_shares")
    if told is not None and len(told) == classes:
        return np.maximum(np.array(told, np.float64), 1e-12)
    if card.settings.get("class_weights") == "balanced":
        return np.full(classes, 1 / classes)
    counts = (card.training.get("counts") or {}).get("training") or {}
    found = np.array([float(counts.get(str(entry.value), 0)) for entry in card.classes])
    if not found.sum() > 0:
        raise BadInput(
            "The model's card does not tell how many samples of each class it learned from.",
            "Choose PRIORS training, or train the model again.",
        )
    # A class that was never seen is never mapped: its share does not matter.
    return np.maximum(found / found.sum(), 1e-12)


def estimated_shares(runtime: Runtime, learned: Shares, tiles: Iterable[Tuple[Floats, Mask]]) -> Shares:
    """Return the shares of the classes in a scene, estimated from the model's own answers ``(K,)``.

    Expectation maximisation: probabilities corrected by the present estimate, whose mean is the next one.
    Source: M. Saerens, P. Latinne, C. Decaestecker, Adjusting the Outputs of a Classifier to New a Priori
    Probabilities, 2002.

    Args:
        runtime: of the model.
        learned: the shares that it takes for granted ``(K,)``.
        tiles: values and valid pixels of tiles spread over the scene.
    """
    parts: List[Floats] = []
    for values, valid in tiles:
        if valid.any():
            parts.append(runtime.probabilities(runtime.scores(values, valid))[:, valid])
    if not parts:
        return learned
    answers = np.concatenate(parts, axis=1).astype(np.float64)
    answers = answers[:, np.isfinite(answers).all(axis=0)]
    shares = learned.copy()
    for _ in range(_ROUNDS):
        corrected = answers * (shares / learned)[:, None]
        corrected /= np.maximum(corrected.sum(axis=0), 1e-300)
        found = corrected.mean(axis=1)
        moved, shares = float(np.abs(found - shares).max()), found
        if moved < _SETTLED:
            break
    return np.asarray(shares)
