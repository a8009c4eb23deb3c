"""Several answers for each pixel, averaged: of several models, and of the scene seen flipped and turned.

Each model answers for itself in a runtime of its own; what is averaged are probabilities, so that networks and forests
may stand beside each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable, Iterator, List, Sequence, Tuple

import numpy as np

from ...models.cards import Card, CardBand
from ...tasks.classtable import other_names, taken_for_one
from ...tasks.context import Context
from ...tasks.errors import BadInput
from ..bandnames import one_unnamed
from ..blending import blended
from .base import Array, Floats, Geometry, Mask, Model, Positions, Runtime, Wishes, first_largest, geometry_of
from .choosing import Tiles, create_runtime


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a square on itself: rows and columns swapped or not, then each reversed or not."""

    swapped: bool = False
    rows_reversed: bool = False
    cols_reversed: bool = False

    def of(self, image: Array) -> Array:
        """Return an image ``(..., H, W)`` in this orientation, in memory of its own unless it is as it was."""
        if self == AS_IT_IS:
            return image
        turned = image.swapaxes(-1, -2) if self.swapped else image
        return np.ascontiguousarray(self._reversed(turned))

    def back(self, image: Array) -> Array:
        """Return an image that was turned by `of` as it was before."""
        found = self._reversed(image)
        return found.swapaxes(-1, -2) if self.swapped else found

    def _reversed(self, image: Array) -> Array:
        rows = slice(None, None, -1) if self.rows_reversed else slice(None)
        cols = slice(None, None, -1) if self.cols_reversed else slice(None)
        return image[..., rows, cols]


AS_IT_IS = Orientation()
_FLIPS = tuple(Orientation(False, rows, cols) for rows in (False, True) for cols in (False, True))
# Value of TTA -> in which orientations the scene is looked at.
ORIENTATIONS = {
    "none": (AS_IT_IS,),
    "flips": _FLIPS,
    "full": _FLIPS + tuple(Orientation(True, each.rows_reversed, each.cols_reversed) for each in _FLIPS),
}


@dataclass(frozen=True)
class Member:
    """One of several models.

    Attributes:
        runtime: what it is run by.
        bands: position of each of its bands among those that are read ``(C,)``.
        orientations: in which it looks at the scene.
    """

    runtime: Runtime
    bands: Tuple[int, ...]
    orientations: Tuple[Orientation, ...] = (AS_IT_IS,)


class CombinedRuntime:
    """See `Runtime`; its scores are logarithms of the averaged probabilities.

    A patch of even size has its labelled pixel at p // 2, right of and below its middle. In a flipped image the same
    pixel shall be labelled: there the patch covers other pixels, one more behind and one less before. So margins are
    equal on all sides; the image is turned with them, and each member takes its own margins from the turned image.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        runtimes = [member.runtime for member in members]
        self.name = " + ".join(dict.fromkeys(runtime.name for runtime in runtimes))
        if len(runtimes) > 1:
            self.name += f", {len(runtimes)} models"
        most = max(len(member.orientations) for member in members)
        if most > 1:
            self.name += f", {most} orientations"
        self.device = " + ".join(dict.fromkeys(runtime.device for runtime in runtimes))
        self.precision = "full" if all(runtime.precision == "full" for runtime in runtimes) else "fast"
        self.geometry = union_of([turned_geometry(m.runtime.geometry, m.orientations) for m in members])
        self.exact = all(runtime.exact for runtime in runtimes)
        self.beside = min(runtime.beside for runtime in runtimes)
        # Beside one member's call: the values turned, and per class its scores, its probabilities and their sum; the
        # classes' number is not known here, and no member's estimate is less than they take.
        self.bytes_per_pixel = 2 * max(runtime.bytes_per_pixel for runtime in runtimes)

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """See `Runtime.best`."""
        return first_largest(self.scores(values, wanted, whole))

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """See `Runtime.scores`."""
        total = self._answer(self._members[0], values, wanted, whole)
        for member in self._members[1:]:
            total += self._answer(member, values, wanted, whole)
        total /= len(self._members)
        # A pixel that is not wanted has no probabilities.
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = np.log(total, out=total)
        return result

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return np.exp(scores)

    def _answer(self, member: Member, values: Floats, wanted: Mask, whole: bool) -> Floats:
        """Return a member's probabilities ``(K, H, W)``, averaged over its orientations, as float32."""
        runtime, (height, width) = member.runtime, wanted.shape
        margins = turned_geometry(runtime.geometry, member.orientations)
        # In a reversed image windows begin where they end here: on the stride's grid in both.
        stride = runtime.geometry.stride if len(member.orientations) > 1 else 1
        rows, cols = (math.ceil(length / stride) * stride for length in wanted.shape)
        first, before = self.geometry.before - margins.before, margins.before
        after = before if len(member.orientations) > 1 else margins.after
        block = values[:, first : first + before + rows + after, first : first + before + cols + after]
        if member.bands != tuple(range(len(values))):
            block = block[list(member.bands)]
        asked = wanted
        if (rows, cols) != wanted.shape:
            asked = np.zeros((rows, cols), bool)
            asked[:height, :width] = wanted
        total = None
        for orientation in member.orientations:
            turned, looked_at = orientation.of(block), orientation.of(asked)
            own = cropped(turned, looked_at, before, runtime.geometry)
            found = runtime.probabilities(runtime.scores(own, looked_at, whole))
            answer = orientation.back(found)[:, :height, :width]
            if total is None:
                total = np.array(answer, np.float32, order="C")
            else:
                total += answer
        if total is None:
            raise ValueError("a member without orientation")
        total /= len(member.orientations)
        return total


def turned_geometry(geometry: Geometry, orientations: Sequence[Orientation]) -> Geometry:
    """Return the margins that a runtime needs whose images are turned: equal ones on all sides.

    Behind them lies what fills the last cell of the stride's grid.
    """
    if len(orientations) == 1:
        return geometry
    margin = max(geometry.before, geometry.after)
    return Geometry(margin, margin + geometry.stride - 1, geometry.stride)


def union_of(geometries: Sequence[Geometry]) -> Geometry:
    """Return the margins and the grid that serve all of these."""
    return Geometry(
        max(geometry.before for geometry in geometries),
        max(geometry.after for geometry in geometries),
        math.lcm(*(geometry.stride for geometry in geometries)),
    )


def cropped(values: Floats, wanted: Mask, before: int, geometry: Geometry) -> Floats:
    """Return the values ``(C, ...)`` of a window with a geometry's own margins, of those with wider ones.

    Args:
        values: with ``before`` pixels before the window and enough behind.
        wanted: of the window ``(H, W)``.
        before: the margin that the values have.
        geometry: the margins to leave.
    """
    first, reach = before - geometry.before, geometry.before + geometry.after
    return values[:, first : first + wanted.shape[0] + reach, first : first + wanted.shape[1] + reach]


# --- which models go together ----------------------------------------------------------------------------------------

_SAME_CLASSES = (
    "Combine models that were trained with the same classes: with one LEGEND or NOMENCLATURE for the samples of all, a "
    "name has one number everywhere."
)


def band_orders(cards: Sequence[Card], names: Sequence[str], context: Context) -> List[Tuple[int, ...]]:
    """Return for each model the position of each of its bands among the first model's.

    Args:
        cards: of the models, the one that the others are compared with first.
        names: what messages call them.
        context: takes a warning where a model calls a class otherwise.

    Raises:
        BadInput: a model knows other classes, reads other bands, or takes them for other units or no-data.
    """
    if any(len(card.sources) != 1 for card in cards):
        number, name = next((len(c.sources), n) for c, n in zip(cards, names) if len(c.sources) != 1)
        raise BadInput(f"The model '{name}' needs {number} sources, one raster is given.", "Leave it out of MODELS.")
    return [_order(cards[0], names[0], card, name, context) for card, name in zip(cards, names)]


def _order(first: Card, first_name: str, card: Card, name: str, context: Context) -> Tuple[int, ...]:
    own, others = {entry.value: entry for entry in card.classes}, {entry.value: entry for entry in first.classes}
    for mine, theirs, who, lacks in ((own, others, name, first_name), (others, own, first_name, name)):
        extra = next((value for value in mine if value not in theirs), None)
        if extra is not None:
            raise BadInput(
                f"The model '{who}' knows class {extra} ({mine[extra].name}), '{lacks}' does not.",
                "Combine models that were trained with the same classes.",
            )
    known = {value: (entry, f"'{first_name}'") for value, entry in others.items()}
    for entry in other_names(known, card.classes, f"'{name}'", _SAME_CLASSES):
        context.warn(taken_for_one(known[entry.value], entry, f"'{name}'"))
    wanted, have = first.sources[0], card.sources[0]
    keys, own_keys = [_key(band) for band in wanted.bands], [_key(band) for band in have.bands]
    positions = {key: index for index, key in enumerate(keys)}
    # A model of an earlier version may not know the names of the same bands.
    alike = [key[1:] for key in own_keys] == [key[1:] for key in keys] and one_unnamed(
        [band.name for band in have.scene_bands], [band.name for band in wanted.scene_bands]
    )
    if own_keys == keys or alike:
        order = tuple(range(len(keys)))
    elif len(positions) == len(keys) and sorted(map(repr, own_keys)) == sorted(map(repr, keys)):
        order = tuple(positions[key] for key in own_keys)
    else:
        raise BadInput(
            f"The model '{name}' reads the bands {_listed(have.bands)}, '{first_name}' reads {_listed(wanted.bands)}.",
            "Combine models of the same bands, with the same scale and offset.",
        )
    if have.nodata_rule != wanted.nodata_rule:
        raise BadInput(
            f"The model '{name}' takes no-data by the rule {have.nodata_rule}, '{first_name}' by {wanted.nodata_rule}.",
            "Combine models that were trained with the same no-data rule.",
        )
    return order


def _key(band: CardBand) -> Tuple[str, str, object, object]:
    return band.name, band.expression, band.scale, band.offset


def _listed(bands: Sequence[CardBand]) -> str:
    def text(band: CardBand) -> str:
        units = {"scale": band.scale, "offset": band.offset}
        given = [f"{word} {value:g}" for word, value in units.items() if value is not None]
        return " ".join([band.formula if band.expression else band.name or "unnamed", *given])

    return ", ".join(map(text, bands))


# --- one runtime for all ---------------------------------------------------------------------------------------------


def wanted_geometry(cards: Sequence[Card], tta: str) -> Geometry:
    """Return the margins of the tiles that `create_combined` looks at."""
    return union_of([turned_geometry(geometry_of(card), ORIENTATIONS[tta]) for card in cards])


def create_combined(
    models: Sequence[Model], orders: Sequence[Tuple[int, ...]], wishes: Wishes, tta: str, context: Context,
    tiles: Callable[[], Tiles] = tuple, pixels: int = 0,
) -> Runtime:  # fmt: skip
    """Return the runtime for one or several models, see `create_runtime`.

    Args:
        models: the models.
        orders: of their bands, by `band_orders`.
        wishes: what the user said about them.
        tta: in which orientations the scene is looked at (`ORIENTATIONS`).
        context: for the log, and asked between batches whether the job was cancelled.
        tiles: gives the values and wanted pixels of the scene's first tiles, with the margins of `wanted_geometry`;
            called for each model.
        pixels: that are to be mapped.

    Raises:
        BadInput: the wished runtime is not installed.
    """
    cards = [model.card for model in models]
    around = wanted_geometry(cards, tta)
    # Networks of one class per pixel share all cores in one window. A patch network beside them does so, too: else it
    # would leave cores idle.
    together = replace(wishes, calls=1) if any(card.output == "pixels" for card in cards) else wishes
    members = []
    for model, order in zip(models, orders):
        own = geometry_of(model.card)
        wished = wishes if model.card.output == "pixels" else together
        runtime = create_runtime(model, wished, context, _of_member(tiles(), order, around, own), pixels)
        alone = own.before == own.after == 0 and own.stride == 1
        if alone and tta != "none":
            context.log("TTA changes nothing for a model of single pixels, which have no orientation.")
        members.append(Member(blended(runtime, model.card), order, ORIENTATIONS["none" if alone else tta]))
    if len(members) == 1 and len(members[0].orientations) == 1:
        return members[0].runtime
    return CombinedRuntime(members)


def _of_member(
    tiles: Tiles, order: Tuple[int, ...], around: Geometry, own: Geometry
) -> Iterator[Tuple[Floats, Mask]]:  # fmt: skip
    for values, wanted in tiles:
        yield cropped(values, wanted, around.before, own)[list(order)], wanted
