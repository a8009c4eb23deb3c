"""Training a network that gives one class per pixel, from dense patch datasets or straight from a raster.

The flow of the job; the loop itself is in segmentationfit.py. It runs on Lightning Fabric, as that of the classifier
does: on a laptop's CPU, on a GPU, and on many under torchrun or srun (rank 0 alone writes).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional, Tuple

import torch
from lightning_fabric import Fabric
from torch import nn

from ..models.build import build_network, parameter_count
from ..models.cards import Card
from ..models.pretrained import start_pretrained
from ..models.registry import PIXEL_NETWORKS, network_entry
from ..models.smp import SmpNetwork
from ..models.two_classes import TwoClasses
from ..tasks.context import Context
from ..tasks.errors import BadInput, JobCancelled
from ..tasks.jobs import TrainResult, TrainSegmenter
from . import graphs
from .checkpoints import Checkpoint, training_key
from .denseparts import DenseRoles, card_source, is_binary
from .densesets import open_dense_roles
from .devices import SilentContext, device_name, quiet, repeatable, start_fabric, using_threads
from .fields import field_of
from .initialmodel import continued
from .metrics import Scores
from .modelfiles import LoadedModel, load_model, module_tensors, save_model, with_suffix
from .ratesearch import search_rate
from .segmentationfit import Fit, class_weights
from .segmentationsettings import Settings, choose_settings
from .trainingreport import Epoch, RunFacts, finish, versions
from .trainingtime import tell_time

_LEAST_TILE = 256  # pixels on a side of the tiles that a network without a finite margin maps in
_ANY_BANDS, _ANY_CLASSES = 3, 2  # of a network that is built to learn what windows it takes, which depends on neither


def train_segmenter(job: TrainSegmenter, context: Context) -> TrainResult:
    """Train a network on a class for every pixel; write the model file and, where asked for, the report.

    Raises:
        BadInput: the data or the initial model cannot be used together, the windows do not fit the network, or the
            training diverged.
    """
    started = time.monotonic()
    output = with_suffix(job.output)
    with quiet(), using_threads(context.threads()), contextlib.ExitStack() as stack:
        fabric = start_fabric(job.device_choice, context, job.precision)
        told = context if fabric.is_global_zero else SilentContext(context)
        # What cannot work is said before the labels of a large image are read, which takes minutes.
        initial = load_model(job.initial_model) if job.initial_model else None
        rule = _window_rule(job, initial)
        if job.source is not None:
            rule.check(job.patch_size, "PATCH_SIZE")
        roles = stack.enter_context(open_dense_roles(job, told))
        rule.check(roles.source.patch_size, "the patches' size")
        checkpoint = None
        if job.resume:
            data = {role: part.facts() for role, part in roles.parts.items()}
            checkpoint = Checkpoint(output, training_key(job, data))
            for sentence in checkpoint.told():
                told.log(sentence)
        try:
            done = _train(job, initial, roles, fabric, checkpoint, told)
        except JobCancelled as error:
            raise JobCancelled(remedy=checkpoint.kept() if checkpoint is not None else "") from error
        threads = torch.get_num_threads()
    facts = RunFacts(
        title=network_entry(done.card.network).title,
        seconds=time.monotonic() - started,
        device=device_name(fabric.device),
        history=done.history,
        best_epoch=done.best,
        chose_epoch=done.settings.patience > 0 and roles.validation is not None,
        chose_threshold=done.card.threshold is not None and job.threshold is None,
        monitor=done.settings.monitor,
        unit="pixels",
        examples=done.examples,
    )
    card = replace(
        done.card,
        parameter_count=parameter_count(done.network),
        settings=_settings(job, done, fabric, threads),
        versions=versions(torch=torch.__version__),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    card, answer, write_report = finish(card, roles, facts, done.result, done.reported, output, job.report, told)
    if fabric.is_global_zero:
        save_model(output, card, module_tensors(done.network))
        if checkpoint is not None:
            checkpoint.remove()
        write_report()
        graphs.export_graphs(done.network, card, output, told)
    return answer


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network with the weights that are kept, its card so far, and how it came about."""

    card: Card
    network: nn.Module
    settings: Settings
    history: Tuple[Epoch, ...]
    best: int
    result: Optional[Scores]
    reported: str
    stopped: bool
    examples: Tuple[Tuple[bytes, ...], ...]
    shares: Tuple[float, ...]


def _train(
    job: TrainSegmenter, initial: Optional[LoadedModel], roles: DenseRoles, fabric: Fabric,
    checkpoint: Optional[Checkpoint], context: Context,
) -> _Trained:  # fmt: skip
    """Train the network, choose its threshold, find how far it looks, and evaluate it once."""
    begun = checkpoint.state if checkpoint is not None else None
    with repeatable(job.seed, fabric.device):
        card, network = _prepare(job, initial, roles, begun, context)
        settings = choose_settings(job, card, len(roles.training))
        if job.find_rate:
            # A test of the weights that it began with: they are others by now.
            found = None if begun is None else float(begun["learning_rate"])
            rate = search_rate(fabric, network, card, settings, roles, context) if found is None else found
            settings = replace(settings, optimising=replace(settings.optimising, learning_rate=rate))
        tell_time(fabric, network, card, settings, roles, context)
        fit = Fit(fabric, network, card, settings, roles, context, checkpoint)
        history, best = fit.run()
        if settings.binary:
            card = replace(card, threshold=_threshold(job, fit, roles, context))
        result, reported = fit.judge(card)
        examples = fit.examples() if job.report and fabric.is_global_zero else ()
    weighted = class_weights(roles.training.pixels, settings.class_weights).numpy() * roles.training.pixels
    shares = tuple(weighted / max(weighted.sum(), 1e-12))
    card = _with_field(card, roles.source.patch_size, context)
    return _Trained(card, network, settings, tuple(history), best, result, reported, fit.stopped, examples, shares)


# --- preparation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _WindowRule:
    """What windows a network takes.

    Attributes:
        title: the network's.
        least: pixels on a side.
        grid: the number that height and width must be multiples of.
    """

    title: str
    least: int
    grid: int

    def check(self, size: int, where: str) -> None:
        """Raise where windows of ``size`` pixels are too small or not on the grid; ``where`` names the setting."""
        if size < self.least:
            raise BadInput(f"{where} is {size} pixels, too small for {self.title}.", f"Give {self.least} or more.")
        if size % self.grid:
            lower = size // self.grid * self.grid
            higher = lower + self.grid
            valid = f"{lower} or {higher}" if lower >= self.least else str(higher)
            raise BadInput(
                f"{where} is {size} pixels; {self.title} takes multiples of {self.grid}.", f"Give {valid} pixels."
            )


def _window_rule(job: TrainSegmenter, initial: Optional[LoadedModel]) -> _WindowRule:
    """Return what windows the job's network, or that of the ``initial`` model, takes, without any data.

    Raises:
        BadInput: there is no such network, or it cannot be built with these arguments.
    """
    entry = network_entry(job.network, PIXEL_NETWORKS)
    network: Optional[nn.Module]
    if initial is not None:
        network = initial.module
    else:
        network = build_network(job.network, _ANY_BANDS, _ANY_CLASSES, 0, job.network_arguments)
    inner = network.network if isinstance(network, TwoClasses) else network
    return _WindowRule(entry.title, entry.smallest_patch, int(getattr(inner, "grid", 1)))


def _prepare(
    job: TrainSegmenter, initial: Optional[LoadedModel], roles: DenseRoles, begun: Optional[Mapping[str, Any]],
    context: Context,
) -> Tuple[Card, nn.Module]:  # fmt: skip
    """Return the card (so far) and the network, with its initial weights.

    ``begun`` is the state of the interrupted training that continues: it brings its own weights.
    """
    ours = card_source(roles, context)
    if initial is not None:
        return continued(initial, job, ours, roles.classes, context)
    entry = network_entry(job.network, PIXEL_NETWORKS)
    binary = is_binary(job, roles.classes)
    network = build_network(
        job.network, len(ours.bands), len(roles.classes), ours.patch_size, job.network_arguments, binary
    )
    arguments = {**entry.arguments, **job.network_arguments}
    if arguments.get("pretrained"):
        # The card tells what was done, not what was wished for: models are compared by it.
        arguments["pretrained"] = _start_pretrained(network, begun, context)
    if "drop_path" in arguments:  # likewise: not every encoder leaves out blocks
        arguments["drop_path"] = next(layer.drop_path for layer in network.modules() if isinstance(layer, SmpNetwork))
    card = Card(
        kind="network",
        network=job.network,
        sources=(ours,),
        classes=roles.classes,
        arguments=arguments,
        output="pixels",
        binary=binary,
        res_m=roles.scene.res_m,
        crs=roles.scene.crs,
    )
    return card, network


def _start_pretrained(network: nn.Module, begun: Optional[Mapping[str, Any]], context: Context) -> bool:
    """Tell whether the network starts from pretrained weights, or has done so where a training continues."""
    if begun is None:
        return start_pretrained(network, context.log, context.warn)
    if not begun["pretrained"]:
        context.warn(
            "The interrupted training that continues began with random weights, for the encoder's pretrained weights "
            "could not be had then. To start from them choose another output."
        )
    return bool(begun["pretrained"])


# --- after the fit ---------------------------------------------------------------------------------------------------


def _threshold(job: TrainSegmenter, fit: Fit, roles: DenseRoles, context: Context) -> Optional[float]:
    """Return the probability from which a binary model maps the second class."""
    if job.threshold is not None:
        return job.threshold
    found = fit.best_threshold() if roles.validation is not None else None
    if found is not None:
        second = roles.classes[1].name
        context.log(
            f"From a probability of {found:.2f} a pixel is mapped as '{second}': there its IoU is largest on the "
            "validation part."
        )
    return found


def _with_field(card: Card, patch_size: int, context: Context) -> Card:
    """Return the card with what mapping needs to know of the network's field of view."""
    context.progress(0, 1, "measuring how far the network looks", "networks")
    field = field_of(card, context.check)
    context.progress(1, 1, "measuring how far the network looks", "networks")
    if field.context == "local":
        context.log(f"The network looks {field.margin} pixels beyond a window: its maps do not depend on tiles.")
        return replace(card, context="local", margin=field.margin, stride=field.stride, tile=None, overlap=None)
    grid = field.stride
    tile = -(-max(patch_size, _LEAST_TILE) // grid) * grid
    overlap = tile // 4 // grid * grid
    context.log(
        f"The network has no finite field of view: it maps in tiles of {tile} pixels that overlap by {overlap} and are "
        "faded into each other."
    )
    return replace(card, context="tile", margin=None, stride=grid, tile=tile, overlap=overlap)


def _settings(job: TrainSegmenter, done: _Trained, fabric: Fabric, threads: int) -> Dict[str, Any]:
    return {
        **done.settings.facts(),
        "learned_shares": [round(float(share), 9) for share in done.shares],
        "stopped": done.stopped,
        "find_rate": job.find_rate,
        "seed": job.seed,
        "initial_model": job.initial_model.rpartition("/")[2],
        "precision": job.precision,
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "threads": threads,
    }
