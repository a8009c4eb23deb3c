"""PRIORS: how frequent the classes of a model are in the scene that is mapped."""

from __future__ import annotations

import csv
import math
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Classify
from .runtimes import Runtime
from .runtimes.base import Floats, Mask
from .runtimes.deciding import DecidingRuntime, Shares, check_threshold, estimated_shares, learned_shares
from .wording import as_given

_TILES = 24  # that shares are estimated from, spread over the scene


def deciding(
    runtime: Runtime, job: Classify, cards: Sequence[Card],
    tiles: Callable[[], Iterable[Tuple[Floats, Mask]]], context: Context,
) -> Runtime:  # fmt: skip
    """Return the runtime whose classes follow from PRIORS and THRESHOLD; the same where they change nothing.

    Args:
        runtime: of the model, or of all of them.
        job: with priors, priors_file and threshold.
        cards: of the models; the first one tells which shares are taken for granted.
        tiles: yields values and valid pixels of tiles of the scene.
        context: for the log.

    Raises:
        BadInput: a threshold for other than two classes, or a file of shares that cannot be used.
    """
    card, threshold = cards[0], check_threshold(job.threshold, cards)
    ratios: Optional[Shares] = None
    if job.priors != "training":
        learned = learned_shares(card)
        if job.priors == "equal":
            shares = np.full(len(learned), 1 / len(learned))
        elif job.priors == "file":
            shares = shares_of_file(job.priors_file, card, context)
        else:
            context.progress(0, 1, "Estimating the shares of the classes", "")
            shares = estimated_shares(runtime, learned, _spread(tiles()))
        told = ", ".join(f"{entry.name} {share:.1%}" for entry, share in zip(card.classes, shares))
        context.log(f"Shares of the classes that are expected in the scene: {told}.")
        # Where nothing changes, the map is the same to the last bit.
        ratios = None if np.allclose(shares, learned, rtol=1e-9) else shares / learned
    if threshold is not None:
        several = job.threshold is None and len(cards) > 1
        mean = ", the mean of the models' thresholds" if several else ""
        text = f"{threshold:g}" if several else as_given(threshold)
        context.log(f"'{card.classes[1].name}' is mapped from a probability of {text} on{mean}.")
    if ratios is None and threshold is None:
        return runtime
    return DecidingRuntime(runtime, ratios, threshold)


def _spread(tiles: Iterable[Tuple[Floats, Mask]]) -> List[Tuple[Floats, Mask]]:
    """Return some tiles, far apart; of many that are looked at, few are kept at a time."""
    kept: List[Tuple[int, Tuple[Floats, Mask]]] = []
    step = 1
    for number, tile in enumerate(tiles):
        if number % step or not tile[1].any():
            continue
        kept.append((number, tile))
        if len(kept) > _TILES:
            step *= 2
            kept = [(index, each) for index, each in kept if index % step == 0]
    return [each for _, each in kept]


def shares_of_file(path: str, card: Card, context: Context) -> npt.NDArray[np.float64]:
    """Return the shares of the classes that a CSV file names ``(K,)``: a class value or name, and its share.

    Raises:
        BadInput: it cannot be read, names a class that the model does not have, or no share is above 0.
    """
    remedy = "Give a CSV file with a line for each class: its value or name, and its share, e.g. 3,0.25."
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise BadInput(f"The shares '{path}' cannot be read: {error.strerror}.", remedy) from error
    delimiter = next((mark for mark in ";\t," if mark in text), ",")
    found: Dict[int, float] = {}
    names = {entry.name.casefold(): entry.value for entry in card.classes}
    values = {str(entry.value): entry.value for entry in card.classes}
    for number, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter)):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        share = _number(cells[1]) if len(cells) > 1 else None
        if share is None and number == 0:
            continue  # a head
        value = values.get(cells[0], names.get(cells[0].casefold()))
        if value is None:
            known = ", ".join(f"{entry.value} '{entry.name}'" for entry in card.classes)
            raise BadInput(f"'{path}' names the class '{cells[0]}', which the model does not have.", f"It has {known}.")
        if share is None or share < 0:
            raise BadInput(f"The share of class '{cells[0]}' in '{path}' is no number of 0 or more.", remedy)
        if value in found:
            raise BadInput(f"'{path}' names the class '{cells[0]}' twice.", remedy)
        found[value] = share
    shares = np.array([found.get(entry.value, 0.0) for entry in card.classes])
    if not shares.sum() > 0:
        raise BadInput(f"'{path}' gives no class a share above 0.", remedy)
    missing = [entry.name for entry in card.classes if entry.value not in found]
    if missing and abs(shares.sum() - 1) > 1e-6:
        raise BadInput(
            f"'{path}' gives no share of {', '.join(missing)}, and the others add up to {shares.sum():g}.",
            "Give every class a share, 0 to one that is not to be mapped.",
        )
    if missing:
        context.warn(f"'{path}' gives no share of {', '.join(missing)}: not mapped.")
    if abs(shares.sum() - 1) > 1e-6:
        context.log(f"The shares of '{path}' add up to {shares.sum():g}; they are divided by that.")
    return np.asarray(shares / shares.sum())


def _number(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
