"""Where a training runs: its device, its threads, its seeds; one process or many under torchrun or srun."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any, Iterator, Optional

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..tasks.context import Context


class SilentContext(Context):
    """What the ranks above 0 tell nobody; they notice a cancel all the same."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.cancelled, self.stopping = context.cancelled, context.stopping


def start_fabric(choice: str, context: Context, precision: str = "full") -> Fabric:
    """Start Fabric on the chosen device; under torchrun or srun on as many as were started.

    Args:
        choice: auto, cpu or cuda.
        context: for the log.
        precision: full, or fast: mixed precision, on a GPU alone.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        context.warn("DEVICE is cuda, but no usable GPU was found: training runs on the CPU.")
    accelerator = "cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu"
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        plugin: Any = TorchElasticEnvironment()
        nodes = max(1, int(os.environ["WORLD_SIZE"]) // local)
    elif tasks > 1 and "SLURM_PROCID" in os.environ and SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        local, plugin = tasks // nodes, SLURMEnvironment()
    else:
        # One process, even inside a SLURM allocation.
        local, nodes, plugin = 1, 1, LightningEnvironment()
    mixed: Any = "32-true"
    if precision == "fast":
        if accelerator == "cuda":
            mixed = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
        else:
            context.log("PRECISION fast is for GPUs: training runs in full precision.")
    strategy = "ddp" if local * nodes > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator, devices=local, num_nodes=nodes, strategy=strategy, plugins=[plugin], precision=mixed
    )
    fabric.launch()
    if fabric.is_global_zero:
        context.log(f"Training runs on {device_name(fabric.device)}.")
    return fabric


def device_name(device: torch.device) -> str:
    """Return what the log and the report call a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's messages on ranks and devices out of the log."""
    loggers = [logging.getLogger(name) for name in ("lightning_fabric", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def using_threads(count: Optional[int]) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators (initial weights, dropout) for a while, and leave them as they were."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield
