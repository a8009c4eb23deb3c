"""What a mapping job can give of a pixel: its class, all probabilities, and measures of how sure the model is.

A product knows its raster's type and no-data, how a window of it is kept in the journal, and what its band is called.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry
from ..tasks.errors import BadInput

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]

# Of 0 to 1 in one byte: 0.004 a step, which leaves 255 for no-data.
_STEPS = 250
_BYTE_NODATA = 255

# Metadata item of the rasters: the threshold that the second of two classes was mapped by.
THRESHOLD_TAG = "DEEPSCAPE_THRESHOLD"

CLASSES, PROBABILITIES, CONFIDENCE, ENTROPY, MARGIN = "classes", "probabilities", "confidence", "entropy", "margin"


@dataclass(frozen=True)
class Product:
    """One raster of a mapping job.

    Attributes:
        kind: classes, probabilities, confidence, entropy or margin.
        path: of the raster.
        dtype: of its bands.
        nodata: of its bands.
        descriptions: one per band.
        stored: type of what the journal keeps of it: positions in the class table, or the bands as they are.
        scale: factor from what is stored in the file to the value that is meant.
    """

    kind: str
    path: str
    dtype: str
    nodata: float
    descriptions: Tuple[str, ...]
    stored: str
    scale: float = 1.0

    @property
    def bands(self) -> int:
        """Return the number of its bands."""
        return len(self.descriptions)

    @property
    def fact(self) -> str:
        """Return what a journal's key says of it."""
        return f"{self.kind} {self.stored}"

    def values(self, probabilities: Floats, positions: Array, valid: Array) -> Array:
        """Return its bands ``(B, H, W)``, as they are stored.

        Args:
            probabilities: of the classes ``(K, H, W)``.
            positions: of the class that was chosen ``(H, W)``.
            valid: False where a pixel has no class ``(H, W)``.
        """
        if self.kind == PROBABILITIES:
            found = probabilities
        elif self.kind == ENTROPY:
            found = entropy(probabilities)[None]
        else:
            found = {CONFIDENCE: confidence, MARGIN: margin}[self.kind](probabilities, positions)[None]
        if self.stored == "float32":
            result: Array = found.astype(np.float32)
            result[:, ~valid] = math.nan
            return result
        with np.errstate(invalid="ignore"):
            stepped: Array = np.rint(found * _STEPS).astype(np.uint8)
        stepped[:, ~valid] = _BYTE_NODATA
        return stepped


def products_of(classes: Sequence[ClassEntry], paths: Sequence[str], stored: str = "float32") -> Tuple[Product, ...]:
    """Return the products that are asked for, the class raster first.

    Args:
        classes: the class table.
        paths: of the rasters of classes, probabilities, confidence (probability of the class that was chosen), entropy
            (0 = sure, 1 = all classes alike) and margin (confidence less the best other class's probability, at least
            0); empty or left out = not wanted.
        stored: float32, or uint8 for one byte a value, with a scale of 0.004 in the file; of all but the classes.

    Raises:
        BadInput: no raster type holds the class ids.
    """
    dtype, nodata = output_type([entry.value for entry in classes])
    found: List[Product] = [Product(CLASSES, paths[0], dtype, nodata, ("class",), positions_type(len(classes)))]
    empty, scale = (math.nan, 1.0) if stored == "float32" else (_BYTE_NODATA, 1 / _STEPS)
    for kind, path in zip((PROBABILITIES, CONFIDENCE, ENTROPY, MARGIN), paths[1:]):
        names = tuple(entry.name for entry in classes) if kind == PROBABILITIES else (kind,)
        if path:
            found.append(Product(kind, path, stored, empty, names, stored, scale))
    return tuple(found)


def output_type(values: Sequence[int]) -> Tuple[str, int]:
    """Return the smallest integer type that holds the class ids and a no-data value, and that value.

    No-data is the first of these that is no class: 255, 0 (uint8); 65535, 0 (uint16); 4294967295 (uint32); with
    negative ids -32768, 32767 (int16); -2147483648, 2147483647 (int32).

    Raises:
        BadInput: a class id fits none of them.
    """
    choices = (
        ("uint8", (255, 0)), ("uint16", (65535, 0)), ("uint32", (2**32 - 1, 0)),
        ("int16", (-(2**15), 2**15 - 1)), ("int32", (-(2**31), 2**31 - 1)),
    )  # fmt: skip
    for dtype, candidates in choices:
        limits = np.iinfo(dtype)
        if limits.min <= min(values) and max(values) <= limits.max:
            free = [value for value in candidates if value not in values]
            if free:
                return dtype, free[0]
    wrong = max(values, key=abs)
    raise BadInput(
        f"The class id {wrong} fits no raster type together with the others.",
        "Train with class ids from -2147483647 to 2147483646.",
    )


# --- positions -------------------------------------------------------------------------------------------------------


def positions_type(classes: int) -> str:
    """Return the type of positions in a class table of this length; its two largest values stay free."""
    return "uint8" if classes <= np.iinfo(np.uint8).max - 1 else "uint16"


def stored_positions(positions: Optional[Array], valid: Array, classes: int) -> Array:
    """Return positions ``(H, W)`` as the journal keeps them.

    Args:
        positions: of a runtime, its type's maximum where no score is finite; None where no pixel is valid.
        valid: False where the scene has no data.
        classes: length of the class table.

    Returns:
        The same of the type `positions_type`: the maximum for no-data, one less where no score is finite.
    """
    dtype = np.dtype(positions_type(classes))
    nodata = np.iinfo(dtype).max
    if positions is None:
        return np.full(valid.shape, nodata, dtype)
    result = positions.astype(dtype)
    result[positions >= classes] = nodata - 1
    result[~valid] = nodata
    return result


# --- measures --------------------------------------------------------------------------------------------------------


def confidence(probabilities: Floats, positions: Array) -> Floats:
    """Return the probability ``(H, W)`` of the class that was chosen, which a threshold may make the smaller one.

    Args:
        probabilities: of the classes ``(K, H, W)``.
        positions: of the class that was chosen ``(H, W)``; where it is none of them, the result means nothing.
    """
    if len(probabilities) == 1:
        return probabilities[0]
    found: Floats = np.take_along_axis(probabilities, _places(probabilities, positions)[None], axis=0)[0]
    return found


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy ``(H, W)`` of probabilities ``(K, H, W)``, as a share of the largest that there can be."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probabilities > 0, probabilities * np.log(probabilities), 0)
    found: Floats = -terms.sum(axis=0) / math.log(max(len(probabilities), 2))
    # Rounding must not leave the range that the legend shows.
    return np.clip(found, 0, 1, out=found)


def margin(probabilities: Floats, positions: Array) -> Floats:
    """Return the probability of the class that was chosen less the largest of the others, at least 0 ``(H, W)``.

    0 also where a threshold chose the class of the smaller probability: to the probabilities, the other one is ahead.

    Args:
        probabilities: of the classes ``(K, H, W)``.
        positions: of the class that was chosen ``(H, W)``; where it is none of them, the result means nothing.
    """
    places, others = _places(probabilities, positions), np.zeros_like(probabilities[0])
    for place, band in enumerate(probabilities):
        np.maximum(others, band, out=others, where=places != place)
    found: Floats = confidence(probabilities, positions) - others
    return np.maximum(found, 0, out=found)


def _places(probabilities: Floats, positions: Array) -> Array:
    """Return positions of classes whatever stands in for "none": numbers that index the probabilities."""
    return np.minimum(positions, len(probabilities) - 1).astype(np.intp)
