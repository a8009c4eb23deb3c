"""Training a network that gives one class per patch: one visible loop on Lightning Fabric.

The same loop runs on a laptop's CPU, on a GPU, and on many under torchrun or srun (rank 0 alone writes). It repeats
exactly for the same data, seed, batch size, threads and device.
"""

from __future__ import annotations

import copy
import math
import os
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from ..models.build import build_network, parameter_count
from ..models.cards import Card
from ..models.prepared import PreparedNetwork
from ..models.registry import PATCH_NETWORKS, network_entry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import TrainClassifier, TrainResult
from . import graphs
from .cardsources import band_statistics, card_source
from .crossvalidation import cross_validate, pooled
from .devices import SilentContext, device_name, quiet, repeatable, start_fabric, using_threads
from .initialmodel import continued
from .metrics import Scores, scores
from .modelfiles import load_model, module_tensors, save_model, with_suffix
from .patchpools import Part
from .trainingbatches import Recipe, StandardisedPatches, augment, batches, choose_recipe
from .trainingreport import Epoch, RunFacts, finish, tell_epoch, versions
from .trainingsets import Roles, open_plan, scene_settings

Array = npt.NDArray[Any]

EVALUATION_BATCH = 1024
PREPARATION_PATCHES = 20_000  # of a larger set, a random choice is enough for what a network solves beforehand


def train_classifier(job: TrainClassifier, context: Context) -> TrainResult:
    """Train a network on a patch dataset; write the model file and, where asked for, the report.

    Raises:
        BadInput: the datasets or the initial model cannot be used together, the patches are too small for the
            network, or the training diverged.
    """
    started = time.monotonic()
    output = with_suffix(job.output)
    with quiet(), using_threads(context.threads()):
        fabric = start_fabric(job.device_choice, context)
        told = context if fabric.is_global_zero else SilentContext(context)
        plan = open_plan(job, told)
        if job.initial_model and (plan.folds or job.test_scenes):
            told.warn("Where INITIAL_MODEL has learned from a scene that is held out, the accuracy is optimistic.")
        roles = plan.roles

        def judge_fold(fold: Roles, inside: Context) -> Tuple[Scores, int, int]:
            judged = _train(job, fold, fabric, inside)
            if judged.result is None:
                raise RuntimeError("the model of a fold has no scene to be judged on")
            return judged.result, judged.best, fold.shared_pixels

        amounts = [job.epochs * len(each.training) for each in (*(fold for _, fold in plan.folds), roles)]
        folds, inside = cross_validate(plan.folds, amounts, judge_fold, told)
        done = _train(job, roles, fabric, inside)
        threads = torch.get_num_threads()
    result, reported = (pooled(folds), "test") if folds else (done.result, done.reported)
    facts = RunFacts(
        title=network_entry(done.card.network).title,
        seconds=time.monotonic() - started,
        device=device_name(fabric.device),
        history=done.history,
        best_epoch=done.best,
        chose_epoch=job.patience > 0 and roles.validation is not None,
        monitor=job.monitor,
        folds=folds,
    )
    card = replace(
        done.card,
        parameter_count=parameter_count(done.network),
        settings={**done.card.settings, **_settings(job, done.recipe, fabric, threads)},
        versions=versions(torch=torch.__version__),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    card, answer, write_report = finish(card, roles, facts, result, reported, output, job.report, told)
    if fabric.is_global_zero:
        save_model(output, card, module_tensors(done.network))
        write_report()
        graphs.export_graphs(done.network, card, output, told)
    return answer


@dataclass(frozen=True, eq=False)
class _Trained:
    """A network with the weights that are kept, its card so far, and how it came about."""

    card: Card
    network: nn.Module
    recipe: Recipe
    history: Tuple[Epoch, ...]
    best: int
    result: Optional[Scores]
    reported: str


def _train(job: TrainClassifier, roles: Roles, fabric: Fabric, context: Context) -> _Trained:
    """Train one network and evaluate it once, on the set whose numbers are reported."""
    with repeatable(job.seed, fabric.device):
        card, network = _prepare(job, roles, context)
        recipe = choose_recipe(job, len(roles.training))
        run = _Run(fabric, network, card, recipe, job, roles, context)
        history, best = run.fit()
        result, reported = run.judge()
    return _Trained(card, network, recipe, tuple(history), best, result, reported)


# --- preparation -----------------------------------------------------------------------------------------------------


def _prepare(job: TrainClassifier, roles: Roles, context: Context) -> Tuple[Card, nn.Module]:
    """Return the card (so far) and the network, with its initial weights."""
    source = roles.training.pool.source
    ours = card_source(roles.training, *band_statistics(roles.training, context))
    if job.initial_model:
        return continued(load_model(job.initial_model), job, ours, roles.classes, context)
    network = build_network(
        job.network, len(source.bands), len(roles.classes), source.patch_size, job.network_arguments
    )
    scene = roles.training.pool.datasets[0].description.scene
    card = Card(
        kind="network",
        network=job.network,
        sources=(ours,),
        classes=roles.classes,
        arguments={**network_entry(job.network, PATCH_NETWORKS).arguments, **job.network_arguments},
        res_m=scene.res_m,
        crs=scene.crs,
    )
    return card, network


def _settings(job: TrainClassifier, recipe: Recipe, fabric: Fabric, threads: int) -> Dict[str, Any]:
    return {
        "epochs": job.epochs,
        "patience": job.patience,
        "monitor": job.monitor,
        "class_weights": job.class_weights,
        "augmentation": job.augmentation,
        "validation_share": job.validation_share,
        **scene_settings(job),
        "initial_model": os.path.basename(job.initial_model),
        "seed": job.seed,
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "threads": threads,
        **{name: getattr(recipe, name) for name in Recipe.__dataclass_fields__},
    }


# --- the loop --------------------------------------------------------------------------------------------------------


class _Run:
    """One training: what the loop needs at hand."""

    def __init__(
        self, fabric: Fabric, network: nn.Module, card: Card, recipe: Recipe, job: TrainClassifier, roles: Roles,
        context: Context,
    ) -> None:  # fmt: skip
        self.fabric, self.network, self.recipe, self.job, self.roles = fabric, network, recipe, job, roles
        self.context = context
        self.may_stop = False
        self.classes = len(card.classes)
        self.data = {
            role: StandardisedPatches(part, card, fabric.device, context) for role, part in roles.parts.items()
        }
        self.weights = _class_weights(roles.training, self.classes, job.class_weights).to(fabric.device)
        self.order = torch.Generator().manual_seed(job.seed)
        self.chance = torch.Generator().manual_seed(job.seed * 1_000_003 + 1 + fabric.global_rank)
        self.smallest = 2 if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()) else 1
        self._ready_network()
        trained = [p for p in network.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        self.module, self.optimizer = fabric.setup(network, optimizer)
        steps = len(self._batches(torch.arange(len(roles.training)))) * job.epochs
        self.scheduler = _schedule(optimizer, recipe, steps)
        # From here on each rank draws its own dropout.
        torch.manual_seed(job.seed + fabric.global_rank)

    def _ready_network(self) -> None:
        """Let the network set what it solves once from the training patches, and hand it the recipe's shifts.

        A network that takes its spectra's logarithm shifts them after it, instead of `augment` before it.
        """
        network, recipe, data = self.network, self.recipe, self.data["training"]
        if not isinstance(network, PreparedNetwork):
            return
        network.jitter, network.brightness = recipe.jitter, recipe.brightness
        self.recipe = replace(recipe, jitter=0.0, brightness=0.0)
        if not self.job.initial_model:
            network.to(self.fabric.device)
            chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.job.seed))
            chosen = chosen[:PREPARATION_PATCHES].sort().values
            labels = data.labels[chosen.to(self.fabric.device)]
            network.prepare(data.batch(chosen), labels, self.weights[labels])

    def _batches(self, order: Tensor) -> List[Tensor]:
        return batches(order, self.recipe.batch_size, self.fabric.global_rank, self.fabric.world_size, self.smallest)

    def fit(self) -> Tuple[List[Epoch], int]:
        """Run the epochs; returns their numbers and which one's weights are kept (counted from 1)."""
        job, context = self.job, self.context
        watched = "validation" in self.data and job.patience > 0
        if job.patience > 0 and not watched:
            context.log("There is no validation set: every epoch is run and the last one is kept.")
        # While the learning rate still rises, an epoch without progress says nothing.
        rising = math.floor(self.recipe.warm_up * job.epochs)
        history: List[Epoch] = []
        best, best_state = 0, None
        best_key: Tuple[float, ...] = (-math.inf,)
        for number in range(1, job.epochs + 1):
            self.may_stop = best_state is not None
            trained = self._train_epoch(number)
            if trained is None:
                break
            loss, train = trained
            held = self._evaluate("validation") if "validation" in self.data else None
            epoch = Epoch(number, loss, train, held[0] if held else None, held[1] if held else None)
            history.append(epoch)
            tell_epoch(epoch, job.epochs, context)
            key = epoch.merit(job.monitor) if watched else (float(number),)
            if key >= best_key:
                best, best_key = number, key
                best_state = copy.deepcopy(self.network.state_dict()) if watched else None
            elif number - max(best, rising) >= job.patience:
                context.log(f"No better {job.monitor} for {job.patience} epochs: training ends.")
                break
            if context.stopping.is_set():
                break
        if len(history) < job.epochs:
            # Nothing is left to do, which the progress would say otherwise until the job's end.
            seen = len(history) * len(self.roles.training)
            context.progress(seen, seen, "training", "patches")
        if best_state is not None:
            self.network.load_state_dict(best_state)
        if context.stopping.is_set():
            context.stopping.clear()  # where scenes are left out in turn, the next training is not meant
            context.log(f"Stopped by the user: the weights of epoch {best} are kept.")
        elif best_state is not None:
            context.log(f"The weights of epoch {best} are kept.")
        return history, best

    def _train_epoch(self, number: int) -> Optional[Tuple[float, Scores]]:
        """Show every sample to the network once; returns the mean loss and the scores of its answers on the way.

        Returns None when the user stopped training in between, which leaves weights that no epoch ended with; it
        happens only where ``may_stop`` says that better ones are kept.
        """
        data, recipe = self.data["training"], self.recipe
        order = torch.randperm(len(data), generator=self.order)
        parts = self._batches(order)
        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        matrix = torch.zeros(self.classes**2, dtype=torch.int64, device=self.fabric.device)
        done, count = (number - 1) * len(data), self.job.epochs * len(data)
        self.module.train()
        for part, whole in zip(parts, order.tensor_split(len(parts))):
            self.context.check()
            if self.may_stop and self.context.stopping.is_set():
                return None
            labels = data.labels[part.to(self.fabric.device)]
            logits = self.module(augment(data.batch(part), recipe, self.chance))
            losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=recipe.label_smoothing)
            # Mean over the whole batch, whatever this rank's share of it: ranks' gradients are averaged.
            loss = (losses * self.weights[labels]).sum() * self.fabric.world_size / len(whole)
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.scheduler.step()
            total += loss.detach() * len(whole) / self.fabric.world_size
            matrix += torch.bincount(labels * self.classes + logits.detach().argmax(1), minlength=self.classes**2)
            done += len(whole)
            self.context.progress(done, count, "training", "patches")
        mean = float(self._sum(total)) / len(data)
        if not math.isfinite(mean):
            raise BadInput(
                f"The training loss is no longer a number in epoch {number} (learning rate {recipe.learning_rate:g}).",
                "Give a smaller LEARNING_RATE, and check the bands for extreme values that should be no-data.",
            )
        return mean, self._scores(matrix)

    @torch.no_grad()
    def _evaluate(self, role: str) -> Tuple[float, Scores]:
        """Return the weighted mean loss and the scores of a part, without dropout."""
        data = self.data[role]
        loss, weight = torch.zeros(2, dtype=torch.float64, device=self.fabric.device)
        matrix = torch.zeros(self.classes**2, dtype=torch.int64, device=self.fabric.device)
        self.module.eval()
        mine = torch.arange(len(data)).tensor_split(self.fabric.world_size)[self.fabric.global_rank]
        for part in torch.split(mine, EVALUATION_BATCH):
            self.context.check()
            labels = data.labels[part.to(self.fabric.device)]
            logits = self.module(data.batch(part))
            losses = functional.cross_entropy(logits, labels, reduction="none") * self.weights[labels]
            loss += losses.sum()
            weight += self.weights[labels].sum()
            matrix += torch.bincount(labels * self.classes + logits.argmax(1), minlength=self.classes**2)
        return float(self._sum(loss)) / max(float(self._sum(weight)), 1e-12), self._scores(matrix)

    def judge(self) -> Tuple[Optional[Scores], str]:
        """Evaluate the kept weights once on the set whose numbers are reported; returns its scores and its name."""
        role = next((role for role in ("test", "validation") if role in self.data), "none")
        return (self._evaluate(role)[1] if role != "none" else None), role

    def _sum(self, value: Tensor) -> Tensor:
        total: Tensor = self.fabric.all_reduce(value, reduce_op="sum")  # type: ignore[assignment]
        return total

    def _scores(self, matrix: Tensor) -> Scores:
        return scores(self._sum(matrix).cpu().numpy().reshape(self.classes, self.classes))


def _class_weights(part: Part, classes: int, rule: str) -> Tensor:
    """Return the weight of each class; their mean over the training samples is 1."""
    count = np.bincount(part.labels, minlength=classes)
    if rule == "none":
        return torch.ones(classes)
    return torch.from_numpy(len(part) / (np.count_nonzero(count) * np.maximum(count, 1))).float()


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Any:
    """Return the schedule: rise to the learning rate, then fall to nothing along a cosine (Smith, 2018)."""
    if recipe.warm_up <= 0:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # Runs of less than 10 steps have no room for a rise and a fall.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=max(steps, 10), pct_start=recipe.warm_up
    )
