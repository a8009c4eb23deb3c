"""What turns a block of a scene into class scores. One traversal (inference.py) serves them all.

A runtime gets physical values with a margin, ``(C, H + p - 1, W + p - 1)``, NaN where no-data, and gives scores
``(K, H, W)``. torch is imported only when a network is to be run: a forest needs none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import numpy as np
import numpy.typing as npt

from ..models.cards import Card
from ..tasks.context import Context
from .features import as_rows, forest_features

if TYPE_CHECKING:
    import torch

    from .nodearrays import Forest

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

# Patches in one call of a network that is run patch by patch.
BATCH = 1024
_COMPARED_WINDOWS = 64
_TOLERANCE = 1e-4


class Runtime(Protocol):
    """Anything that maps blocks.

    Attributes:
        name: what the log and the raster's metadata call it, with its version.
        device: "cpu", or the name of the GPU.
    """

    name: str
    device: str

    def scores(self, values: Floats, wanted: Mask) -> Floats:
        """Return the class scores of a block.

        Args:
            values: physical values ``(C, H + p - 1, W + p - 1)``, NaN where no-data.
            wanted: ``(H, W)``, the pixels whose scores are needed; the others may hold anything.

        Returns:
            ``(K, H, W)``; the class of a pixel is that of its largest score.
        """

    def probabilities(self, scores: Floats) -> Floats:
        """Return probabilities ``(K, H, W)`` of scores."""


def create_runtime(
    card: Card, module: Optional[torch.nn.Module], forest: Optional[Forest], device: str, context: Context,
    batch: int = BATCH,
) -> Runtime:  # fmt: skip
    """Return the runtime for a model.

    Args:
        card: its card.
        module: its network, or None.
        forest: its forest, or None.
        device: auto, cpu or cuda.
        context: for warnings, and asked between batches whether the job was cancelled.
        batch: patches in one call, where the network runs patch by patch.
    """
    if forest is not None:
        return ForestRuntime(card, forest, context)
    if module is None:
        raise ValueError("a model has either a network or a forest")
    return NetworkRuntime(card, module, choose_device(device, context), context, batch)


def choose_device(wanted: str, context: Context) -> str:
    """Return cpu or cuda; warns where a GPU was asked for and there is none."""
    import torch

    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        context.warn("DEVICE is cuda, but no CUDA GPU can be used here: the CPU is used instead.")
    return "cpu"


class ForestRuntime:
    """A Random Forest on the features of whole blocks, without torch and scikit-learn."""

    def __init__(self, card: Card, forest: Forest, context: Context) -> None:
        self.name = "random forest"
        self.device = "cpu"
        self._forest = forest
        self._context = context
        self._kind = str(card.arguments.get("features", "pixel"))
        self._patch_size = card.sources[0].patch_size
        self._fill = np.array([band.mean for band in card.sources[0].bands], dtype=np.float64)
        self._classes = len(card.classes)

    def scores(self, values: Floats, wanted: Mask) -> Floats:
        """See `Runtime.scores`; the scores are probabilities."""
        features, shape = as_rows(forest_features(self._kind, values, self._patch_size, self._fill))
        scores = np.zeros((wanted.size, self._classes))
        chosen = wanted.reshape(-1)
        scores[chosen] = self._forest.predict_proba(features[chosen], self._context.check)
        return np.moveaxis(scores.reshape(*shape, -1), -1, 0)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`."""
        return scores


class NetworkRuntime:
    """A network in torch: over whole blocks where it offers ``dense`` and that proves equal, else patch by patch."""

    def __init__(self, card: Card, module: torch.nn.Module, device: str, context: Context, batch: int = BATCH) -> None:
        import torch

        self._torch = torch
        self._context = context
        self._device = torch.device(device)
        self.device = torch.cuda.get_device_name(self._device) if device == "cuda" else "cpu"
        # TF32 keeps 10 bits of the mantissa: 4 classes in 10,000 pixels would differ from the CPU's.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        threads = context.threads()
        if threads:
            torch.set_num_threads(threads)
        source = card.sources[0]
        self._patch_size = source.patch_size
        self._mean = np.array([band.mean for band in source.bands], np.float32)[:, None, None]
        self._std = np.array([band.std for band in source.bands], np.float32)[:, None, None]
        self._classes = len(card.classes)
        self._module = module.to(self._device).eval()
        self._dense: Optional[Callable[[torch.Tensor], torch.Tensor]] = getattr(module, "dense", None)
        self._compared = False
        self._batch = batch
        self._rows = 0  # rows of a block in one dense call; 0 = all, less after the GPU ran out of memory
        self.name = f"torch {torch.__version__}"
        if self._dense is None:
            context.log(f"The network '{card.network}' is run patch by patch: it offers no evaluation of whole blocks.")

    def scores(self, values: Floats, wanted: Mask) -> Floats:
        """See `Runtime.scores`; the scores are logits."""
        torch = self._torch
        standardised = (values - self._mean) / self._std
        # No-data takes the value 0: the training mean.
        block = torch.from_numpy(np.nan_to_num(standardised, copy=False, nan=0.0))
        with torch.inference_mode():
            if self._dense is not None and not self._compared:
                self._compare(block, wanted)
            if self._dense is not None:
                return self._whole(block)
            return self._patch_by_patch(block, wanted)

    def probabilities(self, scores: Floats) -> Floats:
        """See `Runtime.probabilities`: the softmax of the logits."""
        shifted = np.exp(scores - scores.max(axis=0))
        result: Floats = shifted / shifted.sum(axis=0)
        return result

    def _whole(self, block: torch.Tensor) -> Floats:
        height = block.shape[1] - self._patch_size + 1
        width = block.shape[2] - self._patch_size + 1
        result = np.empty((self._classes, height, width), np.float32)
        start = 0
        while start < height:
            self._context.check()
            rows = min(self._rows or height, height - start)
            part = block[None, :, start : start + rows + self._patch_size - 1]
            logits = self._attempt(self._dense, part)
            if logits is None:
                self._rows = self._less(rows, "rows")
                continue
            result[:, start : start + rows] = logits[0]
            start += rows
        return result

    def _patch_by_patch(self, block: torch.Tensor, wanted: Mask) -> Floats:
        rows, cols = np.nonzero(wanted)
        result = np.zeros((self._classes, *wanted.shape), np.float32)
        start = 0
        while start < len(rows):
            self._context.check()
            chosen = slice(start, start + self._batch)
            patches = self._patches(block, rows[chosen], cols[chosen])
            logits = self._attempt(self._module, patches)
            if logits is None:
                self._batch = self._less(self._batch, "patches")
                continue
            result[:, rows[chosen], cols[chosen]] = logits.T
            start += len(rows[chosen])
        return result

    def _patches(self, block: torch.Tensor, rows: Array, cols: Array) -> torch.Tensor:
        """Return patches ``(n, C, p, p)`` that begin at these rows and columns of a block."""
        windows = block.unfold(1, self._patch_size, 1).unfold(2, self._patch_size, 1)
        return windows[:, rows, cols].transpose(0, 1).contiguous()

    def _attempt(self, function: Any, batch: torch.Tensor) -> Optional[Array]:
        """Return the function's result, or None where the GPU has no memory for it."""
        try:
            return np.asarray(function(batch.to(self._device)).float().cpu().numpy())
        except self._torch.cuda.OutOfMemoryError:
            self._torch.cuda.empty_cache()
            if batch.shape[0] == 1 and batch.shape[2] <= self._patch_size:
                raise
            return None

    def _less(self, count: int, unit: str) -> int:
        less = max(1, count // 2)
        self._context.log(f"The GPU has too little memory for {count} {unit} at a time: {less} are tried.")
        return less

    def _compare(self, block: torch.Tensor, wanted: Mask) -> None:
        """Compare the evaluation of whole blocks with that of patches on up to 64 windows; use it only when equal."""
        self._compared = True
        places = np.flatnonzero(wanted)
        chosen: Mask = np.zeros(wanted.shape, bool)
        chosen.flat[places[np.linspace(0, len(places) - 1, min(_COMPARED_WINDOWS, len(places))).astype(int)]] = True
        strip = self._attempt(self._dense, block[None, :, : self._patch_size])
        difference, scale = np.inf, 1.0
        if strip is not None and strip.shape == (1, self._classes, 1, wanted.shape[1]):
            expected = self._patch_by_patch(block, chosen)[:, chosen]
            difference = float(np.abs(self._whole(block)[:, chosen] - expected).max())
            scale = max(1.0, float(np.abs(expected).max()))
        if difference <= _TOLERANCE * scale:
            self._context.log(
                f"The network is evaluated over whole blocks; on {np.count_nonzero(chosen)} windows it differs from "
                f"patch by patch by {difference:.1g} at most."
            )
            return
        self._dense = None
        self._context.warn(
            f"The evaluation over whole blocks differs from that patch by patch (by {difference:.2g}): the scene is "
            "mapped patch by patch, which takes longer."
        )
