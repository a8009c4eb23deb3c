"""Which runtime maps: what the user wished, what the model is, what is installed, and which is the fastest here."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import itertools
import sys
from typing import TYPE_CHECKING, Callable, Dict, Iterable, Iterator, List, Tuple

import numpy as np

from ...models.cards import Card
from ...tasks.context import Context
from ...tasks.environment import EXTRAS
from ...tasks.errors import BadInput
from .base import Floats, Mask, Model, Runtime, Wishes, band_statistics, geometry_of, only_full_precision

if TYPE_CHECKING:
    from ..graphs import Graphs

Tiles = Iterable[Tuple[Floats, Mask]]

# Value of RUNTIME -> what the user knows it by.
TITLES = {"onnxruntime": "ONNX Runtime", "torch": "torch", "openvino": "OpenVINO"}
# Of the runtimes that are tried in a process of their own: module and class.
_CLASSES = {"openvino": (f"{__package__}.openvino", "OpenVinoRuntime")}
# A job that takes less than this is done before the runtimes are timed.
_WORTH_TIMING_S = 60.0
_LOOKED_AT = 32  # tiles of the scene
_MADE_UP = 256  # pixels on a side of a tile of random values


def create_runtime(
    model: Model, wishes: Wishes, context: Context, tiles: Tiles = (), pixels: int = 0
) -> Runtime:  # fmt: skip
    """Return the runtime for a model.

    A forest has its own. A network runs in torch on a GPU, else on the CPU in ONNX Runtime, or in OpenVINO where that
    is installed, the job is long and it proved faster on this machine. torch on the CPU is taken only where it is
    wished, or for a model that has no file: it was the slowest on every network, and its import alone takes seconds.

    Args:
        model: what is to be mapped with; its weights are read only where the runtime needs them.
        wishes: what the user said about it.
        context: for the log, and asked between batches whether the job was cancelled.
        tiles: values and wanted pixels (see `Runtime`) of the scene's first tiles, with the margins of `geometry_of`;
            read one by one, as many as are needed to compare the forms of the network, and to time runtimes.
        pixels: that are to be mapped, for the estimate of the time that it takes.

    Raises:
        BadInput: the wished runtime is not installed.
    """
    if model.card.kind == "forest":
        from .forest import ForestRuntime

        if wishes.runtime != "auto":
            context.log(f"RUNTIME {wishes.runtime} is for networks: a Random Forest needs none.")
        only_full_precision(wishes, context)
        return ForestRuntime(model, context)
    tiles = _Remembered(tiles, model.card)
    if wishes.runtime != "auto":
        _check_installed(wishes.runtime)
    wants_gpu = wishes.runtime == "auto" and wishes.device != "cpu" and (wishes.device == "cuda" or gpu_is_likely())
    if wants_gpu or wishes.runtime == "torch" or not model.path:
        from .torch_runtime import TorchRuntime, choose_device

        device = choose_device(wishes.device, context)
        if device == "cuda" or wishes.runtime == "torch" or not model.path:
            return TorchRuntime(model, device, wishes, context, tiles)
    elif wishes.device == "cuda":
        context.warn(f"{TITLES[wishes.runtime]} computes on the CPU here: DEVICE cuda is left aside.")
    only_full_precision(wishes, context)
    return _on_the_cpu(model, wishes, context, tiles, pixels)


def _on_the_cpu(model: Model, wishes: Wishes, context: Context, tiles: Tiles, pixels: int) -> Runtime:
    """Return the wished runtime, else ONNX Runtime, else the fastest where the job is long."""
    from ..graphs import graphs_of

    try:
        graphs = graphs_of(model.path, model.card, context)
    except BadInput as error:
        if wishes.runtime != "auto":
            raise
        from .torch_runtime import TorchRuntime

        context.log(f"{error.message} It runs in torch.")
        return TorchRuntime(model, "cpu", wishes, context, tiles)
    makers = _makers(model, graphs, wishes, context, tiles)
    if wishes.runtime != "auto":
        return makers[wishes.runtime]()
    installed = [name for name in makers if _is_installed(name)]
    if not installed:
        raise BadInput(
            "No runtime for the CPU is installed in the engine's environment.", "Repair it with 'Set up the engine'."
        )
    runtime = makers[installed[0]]()
    if len(installed) < 2:
        return runtime
    from .timing import fastest, rate_of, seconds_of
    from .trial import rate_apart

    sample = next(iter(tiles))
    if pixels / sample[1].size * seconds_of(runtime, *sample) < _WORTH_TIMING_S:
        return runtime
    graph = graphs.dense or graphs.patch
    versions = {name: f"{TITLES[name]} {importlib.metadata.version(name)}" for name in installed}
    measures: Dict[str, Callable[[], float]] = {installed[0]: lambda: rate_of(runtime, *sample, context)}
    for name in installed[1:]:
        # Apart, so that this process never holds the memory of a runtime that it does not map with.
        measures[name] = functools.partial(rate_apart, *_CLASSES[name], model, graphs, wishes, *sample, context)
    chosen = fastest(measures, versions, graph, context)
    return runtime if chosen == installed[0] else makers[chosen]()


def _makers(
    model: Model, graphs: Graphs, wishes: Wishes, context: Context, tiles: Tiles
) -> Dict[str, Callable[[], Runtime]]:
    """Return value of RUNTIME -> what makes it; the first is the default."""

    def onnx() -> Runtime:
        from .onnx import OnnxRuntime

        return OnnxRuntime(model, graphs, wishes, context, tiles)

    def openvino() -> Runtime:
        from .openvino import OpenVinoRuntime

        return OpenVinoRuntime(model, graphs, wishes, context, tiles)

    return {"onnxruntime": onnx, "openvino": openvino}


class _Remembered:
    """The scene's first tiles that hold a wanted pixel, read when first looked at and kept for the next look.

    Few are read: a scene may begin with a gigabyte of no-data. One of random values as the model was trained on
    stands behind them.
    """

    def __init__(self, tiles: Tiles, card: Card) -> None:
        self._tiles = itertools.chain(itertools.islice(tiles, _LOOKED_AT), _made_up(card))
        self._seen: List[Tuple[Floats, Mask]] = []

    def __iter__(self) -> Iterator[Tuple[Floats, Mask]]:
        yield from self._seen
        for tile in self._tiles:
            if tile[1].any():
                self._seen.append(tile)
                yield tile


def _made_up(card: Card) -> Iterator[Tuple[Floats, Mask]]:
    """Yield a tile of values that are distributed as those of the training patches."""
    geometry = geometry_of(card)
    means, deviations = band_statistics(card)
    height, width = (_MADE_UP + geometry.before + geometry.after,) * 2
    values = np.random.default_rng(0).standard_normal((height, width, len(means)), np.float32) * deviations + means
    yield np.ascontiguousarray(np.moveaxis(values, -1, 0)), np.ones((_MADE_UP, _MADE_UP), bool)


# --- what there is ---------------------------------------------------------------------------------------------------


def _is_installed(runtime: str) -> bool:
    return importlib.util.find_spec(runtime) is not None


def _check_installed(runtime: str) -> None:
    if _is_installed(runtime):
        return
    how = f"with {runtime} among its EXTRAS" if runtime in EXTRAS else "with ACTION repair"
    raise BadInput(
        f"RUNTIME is {runtime}, but {TITLES[runtime]} is not installed in the engine's environment.",
        f"Run 'Set up the engine' {how}, or choose RUNTIME auto.",
    )


def gpu_is_likely() -> bool:
    """Tell whether torch may find a GPU, without the seconds that its import takes: its build and the driver say so."""
    if "torch" in sys.modules:
        return bool(sys.modules["torch"].cuda.is_available())
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    if version.endswith("+cpu"):
        return False
    return "+rocm" in version or _driver_counts_gpus()


def _driver_counts_gpus() -> bool:
    """Tell whether NVIDIA's driver is there and knows a GPU."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
