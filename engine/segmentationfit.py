"""The loop that fits a network of one class per pixel: it can be interrupted anywhere, and continues to the bit.

All that is random in a step - the order of the windows, their augmentation, dropout - is drawn from seed, epoch and
step alone. What is saved between two steps (`checkpoints.Checkpoint`) therefore needs no state of any generator, and a
training that was interrupted ends with the weights of one that was not, on the same processor and number of threads.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.errors import BadInput, JobCancelled
from . import previews
from .augmentation import augmentation_of, augmented
from .checkpoints import Checkpoint
from .denseparts import IGNORED, DenseRoles
from .loading import batches_of, seed_of
from .losses import loss_function
from .metrics import Scores, scores
from .optimising import Optimising
from .segmentationsettings import Settings
from .trainingbatches import batches
from .trainingreport import Epoch, tell_epoch

Array = npt.NDArray[Any]

SAVE_S = 30.0  # of training that a crash may cost
PREVIEW_S = 5.0
PREVIEWS = 4
MOST_WEIGHT = 10.0
_BINS = 1000  # of the probability, for the threshold
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.05, 0.95


class StoppedEarly(Exception):  # noqa: N818 - no error
    """The user wants the best of what there is."""


@dataclass
class Progress:
    """How far a training is; with the tensors, all that a checkpoint holds.

    Attributes:
        epoch: the one that runs, counted from 1.
        step: its finished steps.
        loss: sum over its finished steps of loss times windows.
        matrix: confusion matrix of its answers on the way ``(K, K)``, rows = reference.
        history: the finished epochs.
        best: the epoch whose weights are kept, 0 before the first.
        best_merit: what made it the best.
    """

    epoch: int
    step: int
    loss: float
    matrix: npt.NDArray[np.int64]
    history: List[Epoch]
    best: int = 0
    best_merit: Tuple[float, ...] = (-math.inf,)


class Fit:
    """One training of one network.

    Attributes:
        network: with the weights that are kept, once `run` has returned.
        progress: how far it is.
        stopped: the user ended it early.
    """

    def __init__(
        self, fabric: Fabric, network: nn.Module, card: Card, settings: Settings, roles: DenseRoles, context: Context,
        checkpoint: Optional[Checkpoint] = None,
    ) -> None:  # fmt: skip
        self.network, self.progress, self.stopped = network, Progress(1, 0, 0.0, _empty(card), []), False
        self._fabric, self._card, self._settings, self._roles = fabric, card, settings, roles
        self._context, self._checkpoint = context, checkpoint
        # How it began, which cannot be found out again when it continues.
        self._start = {
            "pretrained": bool(card.arguments.get("pretrained")), "learning_rate": settings.optimising.learning_rate,
        }  # fmt: skip
        self._classes = len(card.classes)
        self._rim = settings.rim
        self._micro = settings.batch_size  # windows of one call; less where the GPU's memory is too small for a batch
        self._augmentation = augmentation_of(settings.augmentation)
        weights = class_weights(roles.training.pixels, settings.class_weights).to(fabric.device)
        self._loss = loss_function(settings.loss, self._classes, weights, settings.binary)
        self._best_state: Optional[Dict[str, Tensor]] = None
        self._examples: List[int] = []  # windows to show
        self._optimising = Optimising(network, settings.optimising, len(self._plan(1)), settings.epochs)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module, self._optimizer = fabric.setup(network, self._optimising.optimizer)
        self._shown = self._saved = 0.0

    @property
    def watched(self) -> bool:
        """Tell whether the validation part chooses the epoch."""
        return self._roles.validation is not None and self._settings.patience > 0

    # --- epochs ---

    def run(self) -> Tuple[List[Epoch], int]:
        """Run the epochs; returns their numbers and which one's weights are kept (counted from 1)."""
        self._restore()
        self._saved = time.monotonic()
        try:
            while self.progress.epoch <= self._settings.epochs and not self._ended():
                self._epoch()
        except StoppedEarly:
            self.stopped = True
            self._context.stopping.clear()
        except JobCancelled:
            self._save()
            raise
        self._keep_best()
        return self.progress.history, self.progress.best

    def _ended(self) -> bool:
        """Tell whether patience has run out."""
        done = len(self.progress.history)
        # While the learning rate still rises, an epoch without progress says nothing.
        since = done - max(self.progress.best, math.floor(self._settings.optimising.warm_up * self._settings.epochs))
        if not (self.watched and since >= self._settings.patience):
            return False
        self._context.log(f"No better {self._settings.monitor} for {self._settings.patience} epochs: training ends.")
        return True

    def _epoch(self) -> None:
        """Run the epoch, or what is left of it, and close it."""
        self._train()
        with self._optimising.averaged():
            self._close()
            self._show(self.progress.history[-1].number)
        self._save_sometimes()

    def _close(self) -> None:
        """Evaluate the epoch with the weights that would be kept, keep them where they are the best, and go on."""
        now, context = self.progress, self._context
        count = len(self._roles.training)
        matrix = self._sum(torch.from_numpy(now.matrix)).numpy()
        loss = float(self._sum(torch.tensor(now.loss, dtype=torch.float64))) / count
        held = self.evaluate("validation") if self._roles.validation is not None else None
        epoch = Epoch(now.epoch, loss, scores(matrix), held[0] if held else None, held[1] if held else None)
        now.history.append(epoch)
        tell_epoch(epoch, self._settings.epochs, context)
        merit = epoch.merit(self._settings.monitor) if self.watched else (float(epoch.number),)
        if merit >= now.best_merit:
            now.best, now.best_merit = epoch.number, merit
            self._best_state = copy.deepcopy(self.network.state_dict()) if self.watched else None
        watched_loss = epoch.loss if epoch.validation_loss is None else epoch.validation_loss
        self._optimising.after_epoch(watched_loss)
        # A cancel from here on finds the epoch finished, and does not finish it again.
        now.epoch, now.step, now.loss, now.matrix = epoch.number + 1, 0, 0.0, _empty(self._card)

    def _keep_best(self) -> None:
        now = self.progress
        if self._best_state is not None:
            self.network.load_state_dict(self._best_state)
        else:
            self._optimising.keep_average()
            now.best = now.epoch if self.stopped and now.step else now.best
        if self.stopped:
            self._context.log(f"Stopped by the user: the weights of epoch {now.best} are kept.")
        elif self._best_state is not None:
            self._context.log(f"The weights of epoch {now.best} are kept.")

    # --- steps ---

    def _plan(self, epoch: int) -> List[Tensor]:
        """Return this rank's windows of each step of an epoch."""
        order = torch.randperm(len(self._roles.training), generator=_generator(self._settings.seed, epoch))
        return batches(
            order,
            self._settings.batch_size,
            self._fabric.global_rank,
            self._fabric.world_size,
            smallest=self._settings.smallest_batch,
        )

    def _train(self) -> None:
        now, settings, context = self.progress, self._settings, self._context
        steps = self._plan(now.epoch)
        todo = [(step, part.tolist()) for step, part in enumerate(steps) if step >= now.step]
        size = len(self._roles.training)
        self._module.train()
        flowing = batches_of(self._roles.training, self._card, todo, now.epoch, self._augment, settings.seed, context)
        for (step, numbers), (values, targets) in zip(todo, flowing):
            self._look_up()
            torch.manual_seed(seed_of(settings.seed, now.epoch, step, self._fabric.global_rank))
            loss, matrix = self._step(values, targets)
            now.loss += loss * len(numbers)
            now.matrix += matrix
            now.step = step + 1
            if not math.isfinite(loss):
                raise BadInput(
                    f"The training loss is no longer a number in epoch {now.epoch} (learning rate "
                    f"{settings.optimising.learning_rate:g}).",
                    "Give a smaller LEARNING_RATE, and check the bands for extreme values that should be no-data.",
                )
            done = (now.epoch - 1) * size + sum(len(part) for part in steps[: step + 1]) * self._fabric.world_size
            context.progress(min(done, now.epoch * size), settings.epochs * size, "training", "windows")
            self._save_sometimes()

    def _look_up(self) -> None:
        """Raise where the user cancelled, or wants the best of what there is."""
        self._context.check()
        if self._context.stopping.is_set() and self.progress.history:
            raise StoppedEarly

    def _augment(self, values: Tensor, targets: Tensor, generator: torch.Generator) -> Tuple[Tensor, Tensor]:
        return augmented(values, targets, self._augmentation, generator)

    def _step(self, values: Tensor, targets: Tensor) -> Tuple[float, npt.NDArray[np.int64]]:
        """Move the weights by one batch; returns its loss and its confusion matrix.

        Where a GPU has no room for the batch, its parts follow each other and their gradients are added.
        """
        values, targets = self._placed(values, targets)
        while True:
            try:
                return self._accumulated(values, targets)
            except torch.cuda.OutOfMemoryError:
                if self._micro < 2 * self._settings.smallest_batch:
                    raise
                self._micro //= 2
                torch.cuda.empty_cache()
                self._context.log(
                    f"The GPU has no room for {len(values)} windows at once: {self._micro} at a time, whose gradients "
                    "are added (batch normalisation then sees fewer windows together)."
                )

    def _accumulated(self, values: Tensor, targets: Tensor) -> Tuple[float, npt.NDArray[np.int64]]:
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=values.device)
        matrix = torch.zeros(self._classes**2, dtype=torch.int64, device=values.device)
        parts = list(zip(torch.split(values, self._micro), torch.split(targets, self._micro)))
        for number, (some, wanted) in enumerate(parts):
            with self._fabric.no_backward_sync(self._module, enabled=number + 1 < len(parts)):
                logits = self._module(some).float()
                loss = self._loss(logits, wanted) * (len(some) / len(values))
                self._fabric.backward(loss)
            total += loss.detach()
            matrix += _pairs(wanted, logits.detach().argmax(1), self._classes)
        self._optimizer.step()
        self._optimising.after_step()
        return float(total), matrix.cpu().numpy().reshape(self._classes, self._classes)

    def _placed(self, values: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
        """Return a batch on the device, without the targets that the network cannot know."""
        device = self._fabric.device
        if self._rim:
            targets = inner(targets, self._rim)
        if device.type == "cuda":
            values, targets = values.pin_memory(), targets.pin_memory()
        values = values.to(device, non_blocking=True, memory_format=torch.channels_last)
        return values, targets.to(device, non_blocking=True)

    # --- evaluation ---

    @torch.no_grad()
    def evaluate(self, role: str) -> Tuple[float, Scores]:
        """Return the mean loss and the scores of a part, without dropout."""
        total = torch.zeros(2, dtype=torch.float64)
        matrix = torch.zeros(self._classes**2, dtype=torch.int64)
        for logits, targets in self._answers(role):
            labelled = int((targets >= 0).sum())
            total += torch.tensor([float(self._loss(logits, targets)) * labelled, labelled], dtype=torch.float64)
            matrix += _pairs(targets, self._decided(logits), self._classes).cpu()
        loss, weight = self._sum(total).tolist()
        counts = self._sum(matrix).numpy().reshape(self._classes, self._classes)
        return loss / max(weight, 1.0), scores(counts)

    def _decided(self, logits: Tensor) -> Tensor:
        """Return the positions of the classes: of the largest logits, or by the card's threshold."""
        if self._card.threshold is None:
            return logits.argmax(1)
        return (torch.sigmoid(logits[:, 1] - logits[:, 0]) >= self._card.threshold).long()

    def judge(self, card: Card) -> Tuple[Optional[Scores], str]:
        """Evaluate the kept weights once on the part whose numbers are reported; returns its scores and its name.

        Args:
            card: with the threshold that is mapped by.
        """
        self._card = card
        role = next((role for role in ("test", "validation") if role in self._roles.parts), "none")
        return (self.evaluate(role)[1] if role != "none" else None), role

    @torch.no_grad()
    def best_threshold(self) -> Optional[float]:
        """Return the probability that parts the two classes with the largest IoU of the second; None where unknown."""
        counts = torch.zeros(2, _BINS, dtype=torch.int64)
        for logits, targets in self._answers("validation"):
            second = torch.softmax(logits, 1)[:, 1]
            bins = (second * _BINS).long().clamp_(max=_BINS - 1)
            for position in (0, 1):
                found = torch.bincount(bins[targets == position], minlength=_BINS)
                counts[position] += found.cpu()
        counts = self._sum(counts)
        if not bool(counts.sum(1).all()):
            return None
        above = counts.flip(1).cumsum(1).flip(1).double()  # pixels whose probability is the bin's lower end or more
        iou = above[1] / (counts[1].sum() + above[0])
        first, last = round(_LOWEST_THRESHOLD * _BINS), round(_HIGHEST_THRESHOLD * _BINS)
        best = float(iou[first : last + 1].max())
        # In the middle of all that are as good to a thousandth: what chance prefers among them does not hold elsewhere.
        good = (iou[first : last + 1] >= best - 1e-3).nonzero()[:, 0] + first
        return round(float(good.double().mean()) / _BINS, 2)

    def _answers(self, role: str) -> Any:
        """Yield logits and targets of a part's windows, this rank's share of them."""
        part = self._roles.parts[role]
        mine = np.array_split(np.arange(len(part)), self._fabric.world_size)[self._fabric.global_rank]
        starts = range(0, len(mine), self._micro)
        plan = [(step, mine[start : start + self._micro].tolist()) for step, start in enumerate(starts)]
        self._module.eval()
        for values, targets in batches_of(part, self._card, plan, 0, None, self._settings.seed, self._context):
            self._context.check()
            values, targets = self._placed(values, targets)
            yield self._module(values).float(), targets

    def _sum(self, value: Tensor) -> Tensor:
        if self._fabric.world_size == 1:
            return value
        total: Tensor = self._fabric.all_reduce(value.to(self._fabric.device), reduce_op="sum")  # type: ignore[assignment]
        return total.cpu()

    # --- what the user sees ---

    def _show(self, epoch: int) -> None:
        """Send pictures of what the network makes of some windows after an epoch."""
        now = time.monotonic()
        last = epoch >= self._settings.epochs
        if not self._fabric.is_global_zero or (self._shown and now - self._shown < PREVIEW_S and not last):
            return
        self._shown = now
        for number, pictures in enumerate(self._pictures(), start=1):
            caption = "Image, reference and prediction"
            self._context.picture(f"example {number}", previews.strip(pictures), epoch, caption)

    def examples(self) -> Tuple[Tuple[bytes, ...], ...]:
        """Return pictures (PNG) of what the network makes of some windows, of each `previews.TITLES`."""
        return tuple(tuple(previews.png(picture) for picture in pictures) for pictures in self._pictures())

    @torch.no_grad()
    def _pictures(self) -> List[Tuple[previews.Picture, ...]]:
        """Return pictures of what the network makes of some windows, the same ones each time."""
        part = self._roles.validation or self._roles.training
        self._examples = self._examples or previews.telling_windows(part, PREVIEWS, self._context.check)
        self._module.eval()
        pictures: List[Tuple[previews.Picture, ...]] = []
        plan = [(step, [number]) for step, number in enumerate(self._examples)]
        flowing = batches_of(part, self._card, plan, 0, None, self._settings.seed, self._context)
        for number, (standardised, targets) in zip(self._examples, flowing):
            placed, _ = self._placed(standardised, targets)
            found = self._decided(self._module(placed).float())[0].cpu().numpy()
            values, wanted = part.read([number])
            pictures.append(previews.pictures_of(values[0], wanted[0], found, self._card.classes))
        return pictures

    # --- the checkpoint ---

    def _save_sometimes(self) -> None:
        if time.monotonic() - self._saved >= SAVE_S:
            self._save()

    def _save(self) -> None:
        now = self.progress
        if self._checkpoint is None or not self._fabric.is_global_zero or not (now.history or now.step):
            return
        plain, tensors = self._optimising.state()
        state = {
            "epoch": now.epoch, "step": now.step, "loss": now.loss, "matrix": now.matrix.tolist(), "best": now.best,
            "best_merit": list(now.best_merit), "history": [_plain(epoch) for epoch in now.history],
            "optimising": plain, "epochs": self._settings.epochs, **self._start,
        }  # fmt: skip
        held = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        held.update({f"best.{name}": tensor for name, tensor in (self._best_state or {}).items()})
        held.update({f"optimising.{name}": tensor for name, tensor in tensors.items()})
        self._checkpoint.save(state, held)
        self._saved = time.monotonic()

    def _restore(self) -> None:
        """Continue what was interrupted."""
        found = self._checkpoint.load() if self._checkpoint is not None else None
        if found is None:
            return
        state, tensors = found
        groups: Dict[str, Dict[str, Tensor]] = {"network": {}, "best": {}, "optimising": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.network.load_state_dict(groups["network"])
        self._best_state = groups["best"] or None
        self._optimising.load(state["optimising"], groups["optimising"])
        matrix = np.array(state["matrix"], np.int64)
        history = [_epoch(plain) for plain in state["history"]]
        self.progress = Progress(
            state["epoch"], state["step"], state["loss"], matrix, history, state["best"], tuple(state["best_merit"]),
        )  # fmt: skip
        self._context.log(
            f"The interrupted training continues in epoch {min(self.progress.epoch, self._settings.epochs)}."
        )
        for epoch in history:
            tell_epoch(epoch, self._settings.epochs, self._context)


def inner(targets: Tensor, rim: int) -> Tensor:
    """Return targets ``(N, H, W)`` whose outermost ``rim`` pixels are ignored."""
    kept = torch.full_like(targets, IGNORED)
    kept[:, rim:-rim, rim:-rim] = targets[:, rim:-rim, rim:-rim]
    return kept


def class_weights(pixels: npt.NDArray[np.int64], rule: str) -> Tensor:
    """Return the weight of each class ``(K,)``; their mean over the labelled pixels is 1.

    balanced: in inverse proportion to the pixels, but none above `MOST_WEIGHT` before the mean is made 1: a class of a
    few pixels among millions would else be all that the network looks at.
    """
    if rule != "balanced":
        return torch.ones(len(pixels))
    present = np.count_nonzero(pixels)
    weights = np.minimum(pixels.sum() / (max(present, 1) * np.maximum(pixels, 1)), MOST_WEIGHT)
    return torch.from_numpy(weights * pixels.sum() / max(float((weights * pixels).sum()), 1e-12)).float()


def _pairs(targets: Tensor, found: Tensor, classes: int) -> Tensor:
    """Return the counts of all pairs of reference and answer ``(K * K,)``."""
    # A row more, the first, counts what is ignored: that is faster than leaving it out.
    keys = (targets.clamp_min(IGNORED) + 1) * classes + found
    return torch.bincount(keys.reshape(-1), minlength=classes * (classes + 1))[classes:]


def _generator(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def _empty(card: Card) -> npt.NDArray[np.int64]:
    return np.zeros((len(card.classes), len(card.classes)), np.int64)


def _plain(epoch: Epoch) -> Dict[str, Any]:
    held = None if epoch.validation is None else epoch.validation.matrix.tolist()
    return {
        "number": epoch.number, "loss": epoch.loss, "train": epoch.train.matrix.tolist(),
        "validation_loss": epoch.validation_loss, "validation": held,
    }  # fmt: skip


def _epoch(plain: Dict[str, Any]) -> Epoch:
    held = plain["validation"]
    return Epoch(
        plain["number"], plain["loss"], scores(np.array(plain["train"])), plain["validation_loss"],
        None if held is None else scores(np.array(held)),
    )  # fmt: skip
