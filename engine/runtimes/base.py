"""What a runtime is: anything that turns a block of a scene into classes or class scores.

One traversal (inference.py) serves them all. A runtime gets physical values with a margin and gives, for every pixel
inside the margin, the position of its class in the card's class table, or the scores of all classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Protocol, Tuple, Union

import numpy as np
import numpy.typing as npt

from ...models.cards import Card
from ...tasks.context import Context

if TYPE_CHECKING:
    from ..modelfiles import LoadedModel
    from ..nodearrays import Forest

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]
Positions = Union[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]

# Patches in one call of a network that is run patch by patch.
BATCH = 1024
# Megabytes that a job may take where the user does not say.
MEMORY_MB = 1500
# Pixels on a side of the tiles of a network without a finite margin, where its card says nothing.
TILE = 512


@dataclass(frozen=True)
class Geometry:
    """How a window's values and its results lie to each other, on each axis.

    Attributes:
        before: real pixels that are needed before a window.
        after: likewise behind it.
        stride: windows begin at multiples of this, counted from the raster's pixel (0, 0).
    """

    before: int
    after: int
    stride: int = 1


@dataclass(frozen=True)
class Wishes:
    """What the user said about how a model is to be run.

    Attributes:
        runtime: auto, onnxruntime, torch or openvino.
        precision: full or fast.
        device: auto, cpu or cuda.
        batch: patches in one call, where the network runs patch by patch.
        memory: megabytes that the job may take.
        calls: at most so many at a time; 0 = as many as are best.
    """

    runtime: str = "auto"
    precision: str = "full"
    device: str = "auto"
    batch: int = BATCH
    memory: int = MEMORY_MB
    calls: int = 0


@dataclass(frozen=True, eq=False)
class Model:
    """A model to map with; its weights are read only when a runtime needs them.

    Attributes:
        card: what the model says of itself.
        path: its file; empty for a model that is in memory only.
        loaded: the model in memory, or None.
    """

    card: Card
    path: str = ""
    loaded: Optional[LoadedModel] = None

    @classmethod
    def of(cls, model: Union[Model, LoadedModel]) -> Model:
        """Return a model, or one in memory, as a model."""
        return model if isinstance(model, Model) else cls(model.card, loaded=model)

    def load(self) -> LoadedModel:
        """Return the model in memory; a network imports torch."""
        if self.loaded is not None:
            return self.loaded
        from ..modelfiles import load_model

        return load_model(self.path)

    def forest(self) -> Forest:
        """Return its forest."""
        found = self.load().forest
        if found is None:
            raise ValueError(f"'{self.path}' holds no forest")
        return found


class Runtime(Protocol):
    """Anything that maps blocks.

    ``values`` are physical, float32 ``(C, H + before + after, W + before + after)``, NaN where no-data, and are not
    changed; ``wanted`` ``(H, W)`` tells the pixels whose results are needed, the others may come as anything;
    ``whole`` = no value is NaN, so that none is looked for. `best` and `scores` may be called from several threads.

    Attributes:
        name: what the log and the raster's metadata call it, with its version.
        device: "cpu", or the name of the GPU.
        precision: "full" or "fast".
        geometry: the margins that it needs.
        beside: calls that run well at the same time, each in a thread of its own.
        bytes_per_pixel: estimate of the memory that a call takes for each pixel of its window, ``values`` included.
        exact: a part of a window gives the same as the whole of it to the last bit, so that any part may be computed.
    """

    name: str
    device: str
    precision: str
    geometry: Geometry
    beside: int
    bytes_per_pixel: float
    exact: bool

    def best(self, values: Floats, wanted: Mask, whole: bool = False) -> Positions:
        """Return each pixel's position in the class table ``(H, W)``: of the first of its largest scores.

        The type's maximum (`no_class`) where no score is finite.
        """

    def scores(self, values: Floats, wanted: Mask, whole: bool = False) -> Floats:
        """Return the scores of all classes ``(K, H, W)``; the class of a pixel is that of its largest score."""

    def probabilities(self, scores: Floats) -> Floats:
        """Return probabilities ``(K, H, W)`` of scores."""


def geometry_of(card: Card) -> Geometry:
    """Return the margins of a model: in a patch network a pixel i reads [i - p // 2, i + p - 1 - p // 2].

    The margin of a network of one class per pixel is that of windows that begin and end on its grid: behind a window
    that ends between, the rest of the grid's cell is needed too. Tiles are mapped as they are (see blending.py).
    """
    if card.output == "pixels" and card.context == "tile":
        return Geometry(0, 0, card.stride)
    if card.output == "pixels":
        margin, stride = card.margin or 0, card.stride
        return Geometry(margin, margin + (stride if stride > 1 else 0), stride)
    size = card.sources[0].patch_size
    return Geometry(size // 2, size - 1 - size // 2)


def position_type(classes: int) -> npt.DTypeLike:
    """Return the type of positions in a class table of this length; its maximum stays free."""
    return np.uint8 if classes <= np.iinfo(np.uint8).max else np.uint16


def no_class(positions: Positions) -> int:
    """Return what stands in positions for "no finite score"."""
    return int(np.iinfo(positions.dtype).max)


def first_largest(scores: Floats) -> Positions:
    """Return the position of the first largest of the scores ``(K, ...)``; `no_class` where it is not finite."""
    positions: Positions = scores.argmax(axis=0).astype(position_type(len(scores)))
    positions[~np.isfinite(scores.max(axis=0))] = no_class(positions)
    return positions


def filled(values: Floats, means: Floats, whole: bool) -> Floats:
    """Return values ``(C, H, W)`` whose NaN are replaced by the band's training mean ``(C,)``; the same where none."""
    if whole:
        return values
    missing = np.isnan(values)
    return np.where(missing, means[:, None, None], values) if missing.any() else values


def on_grid(values: Floats, means: Floats, stride: int) -> Floats:
    """Return values ``(C, H, W)`` with rows and columns added behind, so that both counts are multiples of a stride.

    They hold the training means; margins keep what they hold away from every result.
    """
    more = [-length % stride for length in values.shape[1:]]
    if not any(more):
        return values
    bands, height, width = values.shape
    result = np.empty((bands, height + more[0], width + more[1]), values.dtype)
    result[:] = means[:, None, None]
    result[:, :height, :width] = values
    return result


def softmax(scores: Floats) -> Floats:
    """Return the probabilities ``(K, H, W)`` of logits."""
    result: Floats = np.exp(scores - scores.max(axis=0))
    result /= result.sum(axis=0)
    return result


def band_statistics(card: Card) -> Tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the training means and standard deviations of the model's bands, each ``(C,)``."""
    bands = card.sources[0].bands
    return np.array([band.mean for band in bands], np.float32), np.array([band.std for band in bands], np.float32)


def widest_images(model: Model) -> float:
    """Return how many float32 images of a window's size a network holds at a time, at most; an estimate.

    A patch network: a layer's input, output and work space. A network of one class per pixel has its widest layer where
    its images are smallest, by its stride, and keeps those of the encoder for the decoder: measured on a U-Net, 8 times
    the channels at full resolution where margins are not computed, 11 times where they are.
    """
    if model.loaded is not None and model.loaded.module is not None:
        shapes = [tuple(weight.shape) for weight in model.loaded.module.parameters()]
    else:
        # From the file's header alone.
        from safetensors import safe_open

        with safe_open(model.path, framework="numpy") as file:
            shapes = [tuple(file.get_slice(name).get_shape()) for name in file.keys()]
    widest = max((shape[0] for shape in shapes if len(shape) > 1), default=1)
    if model.card.output != "pixels":
        return 3.0 * widest
    return (8.0 if model.card.context == "local" else 11.0) * widest / model.card.stride


def only_full_precision(wishes: Wishes, context: Context) -> None:
    """Say that PRECISION fast changes nothing where it does not."""
    if wishes.precision == "fast":
        context.log("PRECISION fast changes nothing on the CPU, which computes in full precision.")


def cores(context: Context) -> int:
    """Return the number of threads that the job may keep busy."""
    own = context.threads()
    if own:
        return own
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
