"""OpenVINO on Intel's CPUs, where the user installed it: faster than ONNX Runtime on some larger networks."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
import openvino

from .base import Array, Floats, cores
from .graph import Evaluate, GraphRuntime


class OpenVinoRuntime(GraphRuntime):
    """See `GraphRuntime`: a stream and a request for each call, which share the cores."""

    name = f"OpenVINO {openvino.__version__.split('-')[0]}"
    kernels = 2.0  # 1.5 to 2.0 on U-Nets and U-Net++
    images = 0.65  # measured on U-Nets and patch networks alike

    def open(self, path: Path) -> Evaluate:
        """See `GraphRuntime.open`; a graph is compiled for one output, when that is first asked for."""
        requests: Dict[str, _Requests] = {}
        lock = threading.Lock()

        def evaluate(values: Floats, output: str) -> Array:
            with lock:
                if output not in requests:
                    requests[output] = _Requests(_compiled(path, output, self.beside, cores(self._context)))
            with requests[output].lent() as request:
                # Copied: the request's own memory is written again by its next call.
                return np.array(request.infer({0: np.ascontiguousarray(values)})[0])

        return evaluate


class _Requests:
    """The requests of a compiled graph: each serves one call at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Any]:
        try:
            request = self._free.get_nowait()
        except queue.Empty:
            request = self._compiled.create_infer_request()
        try:
            yield request
        finally:
            self._free.put(request)


def _compiled(path: Path, output: str, streams: int, threads: int) -> Any:
    core = openvino.Core()
    model = core.read_model(path)
    chosen = openvino.Model([model.output(output)], model.get_parameters())
    settings = {
        # The default is bfloat16 on CPUs that have it: half a percent of the classes would differ.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(threads),
    }
    return core.compile_model(chosen, "CPU", settings)
