"""ONNX Runtime on the CPU: the default there, for it is the fastest on nearly every network."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from .base import Array, Floats
from .graph import Evaluate, GraphRuntime


class OnnxRuntime(GraphRuntime):
    """See `GraphRuntime`: one session, which all calls share.

    Its sums do not depend on tiles, threads or the number of calls beside each other: results are equal to the last
    bit.
    """

    name = f"ONNX Runtime {onnxruntime.__version__}"
    kernels = 1.8  # 1.5 to 1.8 on U-Nets, 2.0 on U-Net++, less what else is counted
    in_blocks = True
    images = 0.7
    exact = True

    def open(self, path: Path) -> Evaluate:
        """See `GraphRuntime.open`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        # Planned for images of one size, memory is taken beside that of the first image: half as much again, no faster.
        options.enable_mem_pattern = False
        # In the graph's order, a U-Net keeps less of the encoder for the decoder: a tenth less memory.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

        def evaluate(values: Floats, output: str) -> Array:
            return session.run([output], {"values": values})[0]

        return evaluate
