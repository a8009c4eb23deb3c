"""Extra bands computed from the bands of a scene, in training and again in mapping: ``NDVI = (B8 - B4) / (B8 + B4)``.

They are computed pixel by pixel from physical values (scale and offset applied, float32 as everything that a model
sees), in float64, and rounded to float32: the same bits as a band of a file that was computed so beforehand.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.errors import BadInput
from .expressions import BandExpression, parse_expressions
from .oddvalues import LARGEST_MEASUREMENT

Array = npt.NDArray[Any]


def parse_computed(
    text: str, names: Sequence[str], where: str = "EXPRESSIONS", remedy: str = ""
) -> Tuple[BandExpression, ...]:
    """Parse the expressions of computed bands, separated by commas or semicolons; see `parse_expressions`.

    Args:
        text: the expressions.
        names: descriptions of the scene's own bands, "" where there is none.
        where: what messages call the text.
        remedy: what else to do where a band is named that there is not, see `parse_expressions`.

    Raises:
        BadInput: one cannot be understood, asks for statistics of the whole scene, uses no band, or has the name of
            another band.
    """
    expressions = parse_expressions(text, names, where, remedy)
    taken = {name for name in names if name}
    for expression in expressions:
        if expression.needs_statistics:
            raise BadInput(
                f"'{expression.text}' of {where} needs statistics of the whole image, and those of the scene that is "
                "mapped will be others.",
                "Write their numbers instead, or compute the band beforehand with 'Stack and normalise bands'.",
            )
        if not expression.bands:
            raise BadInput(f"'{expression.text}' of {where} uses no band.", "Write e.g. (B4 - B3) / (B4 + B3).")
        if expression.name in taken:
            raise BadInput(
                f"{where} calls a band '{expression.name}', which is the name of another band.",
                "Choose another name, e.g. NDVI2 = (B4 - B3) / (B4 + B3).",
            )
        taken.add(expression.name)
    return expressions


def used_bands(expressions: Sequence[BandExpression]) -> Tuple[int, ...]:
    """Return the 0-based bands that any of the expressions uses, ascending."""
    return tuple(sorted(frozenset().union(*(expression.bands for expression in expressions))))


def compute(expressions: Sequence[BandExpression], values: Mapping[int, Array], valid: Array) -> Array:
    """Return the computed bands.

    Args:
        expressions: E of them.
        values: physical values ``(H, W)`` of the bands that are used, by their 0-based number.
        valid: False where a value is no-data, of all of the scene's own bands ``(C, H, W)``.

    Returns:
        float32 ``(E, H, W)``, NaN where a band that is used has no-data, and where the result is not finite or larger
        than any measurement.
    """
    exact = {band: part.astype(np.float64) for band, part in values.items()}
    with np.errstate(over="ignore"):
        found = np.stack([expression.evaluate(exact, valid, {}) for expression in expressions]).astype(np.float32)
    found[np.abs(found) > LARGEST_MEASUREMENT] = np.nan
    return found
