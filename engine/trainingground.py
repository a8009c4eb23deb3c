"""The ground that a model learned from: what its card keeps of it, so that reference pixels there can be told apart.

The card holds boxes of pixels of each scene with the scene's place, never a pixel's value. Ten thousand patches take
some 40 kB; where there are more than `MOST_BOXES`, they are widened to cells of several pixels and joined.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.errors import BadInput
from .datasets import DatasetScene

Boxes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_BOXES = 100_000
# Cells of a scene at which boxes are joined.
_MOST_CELLS = 16_000_000
# Of pixels and of a card's boxes: what lies beyond is no raster.
_LARGEST = 2**31 - 1
# The transform of a raster without one.
_PLAIN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Ground:
    """Boxes of a scene's pixels that samples took their values from.

    Attributes:
        scene: name, CRS and grid of the scene; width 0 = nobody knows where the samples lie.
        boxes: top, left, bottom, right in pixels ``(N, 4)``, the ends outside; they may overlap.
        cell: the boxes are widened to multiples of so many pixels; 1 = they are exact.
    """

    scene: DatasetScene
    boxes: Boxes
    cell: int = 1

    @property
    def known(self) -> bool:
        """Tell whether it is known where the samples lie."""
        return self.scene.width > 0


def patch_ground(scene: DatasetScene, rows: Boxes, cols: Boxes, size: int) -> Ground:
    """Return the ground of patches around pixels ``(N,)`` of a scene, as far as it lies inside."""
    tops, lefts = rows - size // 2, cols - size // 2
    boxes = np.stack([tops, lefts, tops + size, lefts + size], axis=1).reshape(-1, 4)
    return Ground(scene, np.clip(boxes, 0, [scene.height, scene.width, scene.height, scene.width]))


def mask_ground(scene: DatasetScene, strips: Iterable[Tuple[int, Mask]]) -> Ground:
    """Return the ground of the True pixels of a scene, given in strips ``(H, W)`` of whole rows and their first row."""
    found: List[Boxes] = [np.empty((0, 4), np.int64)]
    for top, mask in strips:
        found.append(_boxes_of(mask) + np.array([top, 0, top, 0]))
    return Ground(scene, _joined(np.concatenate(found)))


def _boxes_of(mask: Mask) -> Boxes:
    """Return boxes ``(N, 4)`` that cover the True pixels ``(H, W)``, each once."""
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    return _joined(np.stack([rows, starts, rows + 1, ends], axis=1).astype(np.int64))


def _joined(boxes: Boxes) -> Boxes:
    """Join boxes of the same columns of which one begins where the other ends."""
    if len(boxes) < 2:
        return boxes
    boxes = boxes[np.lexsort((boxes[:, 0], boxes[:, 3], boxes[:, 1]))]
    new = np.any(boxes[1:, [1, 3]] != boxes[:-1, [1, 3]], axis=1) | (boxes[1:, 0] != boxes[:-1, 2])
    first = np.flatnonzero(np.concatenate([[True], new]))
    last = np.concatenate([first[1:] - 1, [len(boxes) - 1]])
    return np.stack([boxes[first, 0], boxes[first, 1], boxes[last, 2], boxes[first, 3]], axis=1)


def coverage(boxes: Boxes, shape: Tuple[int, int]) -> Mask:
    """Return which pixels of a window ``(H, W)`` boxes cover: +1 and -1 at their corners, summed along both axes."""
    steps = np.zeros((shape[0] + 1, shape[1] + 1), np.int32)
    for row, col, sign in ((0, 1, 1), (0, 3, -1), (2, 1, -1), (2, 3, 1)):
        np.add.at(steps, (boxes[:, row], boxes[:, col]), sign)
    return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)


def _widened(ground: Ground) -> Ground:
    """Return the ground in cells so large that `MOST_BOXES` are enough; it holds the ground, and some around it."""
    height, width = ground.scene.height, ground.scene.width
    boxes, cell = ground.boxes, ground.cell
    while len(boxes) > MOST_BOXES:
        cell *= 2
        down, across = -(-height // cell), -(-width // cell)
        if down * across > _MOST_CELLS:
            continue
        cells = np.concatenate([ground.boxes[:, :2] // cell, -(-ground.boxes[:, 2:] // cell)], axis=1)
        boxes = np.minimum(_boxes_of(coverage(cells, (down, across))) * cell, [height, width, height, width])
    return replace(ground, boxes=boxes, cell=cell)


# --- the card --------------------------------------------------------------------------------------------------------


def written(grounds: Sequence[Ground], earlier: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """Return what the card says under ``field``: parts (one per scene's grid) and unknown (names of the others).

    Args:
        grounds: of what trained and what chose the epoch.
        earlier: ``training`` of the card of the model that was trained further; None without one.
    """
    nowhere = {ground.scene.label for ground in grounds if not ground.scene.crs and ground.scene.transform == _PLAIN}
    # Rows and columns of plain pictures tell them apart from no other one.
    unplaced = nowhere if len(nowhere) > 1 else set()
    unknown = {ground.scene.label for ground in grounds if not ground.known} | unplaced
    together: Dict[Any, List[Ground]] = {}
    for ground in grounds:
        if ground.scene.label not in unknown and len(ground.boxes):
            together.setdefault((ground.scene.crs, ground.scene.transform), []).append(ground)
    parts = [_part(some) for some in together.values()]
    if earlier is not None:
        before = earlier.get("field")
        if isinstance(before, Mapping):
            parts += [part for part in before.get("parts", ()) if part not in parts]
            unknown |= set(before.get("unknown", ()))
        else:
            unknown.add("INITIAL_MODEL")
    return {"parts": parts, "unknown": sorted(unknown)}


def _part(grounds: Sequence[Ground]) -> Dict[str, Any]:
    """Return the boxes of one grid in plain form; it is as large as the largest of its scenes."""
    width, height = (max(getattr(ground.scene, side) for ground in grounds) for side in ("width", "height"))
    first = replace(grounds[0].scene, width=width, height=height)
    boxes = np.unique(np.concatenate([ground.boxes for ground in grounds]), axis=0)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    found = _widened(Ground(first, boxes))
    return {
        "scene": first.label,
        "crs": first.crs,
        "transform": list(first.transform),
        "size": [width, height],
        "cell": found.cell,
        "boxes": len(found.boxes),
        "data": _packed(found.boxes),
    }


def _packed(boxes: Boxes) -> str:
    """Return boxes as text: differences from one top to the next, left, height and width, deflated."""
    boxes = boxes[np.lexsort((boxes[:, 1], boxes[:, 0]))]
    columns = [
        np.diff(boxes[:, 0], prepend=0),
        boxes[:, 1],
        boxes[:, 2] - boxes[:, 0],
        boxes[:, 3] - boxes[:, 1],
    ]
    return base64.b64encode(zlib.compress(np.stack(columns).astype("<i4").tobytes(), 9)).decode("ascii")


def read_grounds(training: Mapping[str, Any]) -> Tuple[List[Ground], List[str]]:
    """Return the ground that a card's ``training`` tells of, and the names of what it does not know the place of.

    Raises:
        BadInput: what stands there was not written by `written`.
    """
    field = training.get("field") or {}
    try:
        return [_ground_of(part) for part in field.get("parts", ())], [str(name) for name in field.get("unknown", ())]
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise BadInput(f"The model's card tells its training area in no known form ({error}).") from error


def _ground_of(part: Mapping[str, Any]) -> Ground:
    count, (width, height) = int(part["boxes"]), (int(side) for side in part["size"])
    if not (0 <= count <= 64 * MOST_BOXES and 0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise ValueError(f"{count} boxes of a scene of {width} x {height} pixels")
    inflate = zlib.decompressobj()
    # Not a byte more than is announced, whatever the card holds.
    raw = inflate.decompress(base64.b64decode(part["data"], validate=True), 16 * count + 1)
    if len(raw) != 16 * count:
        raise ValueError(f"{len(raw)} bytes instead of {16 * count}")
    down, left, tall, wide = np.frombuffer(raw, "<i4").reshape(4, count).astype(np.int64)
    top = np.cumsum(down)
    boxes = np.stack([top, left, top + tall, left + wide], axis=1)
    if count and (boxes.min() < 0 or (boxes.max(axis=0) > [height, width, height, width]).any()):
        raise ValueError("boxes beyond the scene")
    transform = tuple(float(value) for value in part["transform"])
    scene = DatasetScene(str(part["scene"]), "", str(part["crs"]), transform, width, height, None)
    return Ground(scene, boxes, int(part["cell"]))
