"""What a training says at its end: the card's numbers, the job's result and the HTML report."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np
from markupsafe import Markup

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.errors import BadInput, DiskFull
from ..tasks.jobs import TrainResult
from ..tasks.protocol import plugin_version
from . import reports
from .crossvalidation import NUMBERS, Fold, fold_summary
from .metrics import Scores, metrics_dict
from .previews import TITLES
from .reports import Section
from .trainingground import Ground, written

OPTIMISTIC = "chosen on these samples: optimistic"
CROSS_VALIDATED = (
    "Accuracy on every scene by a model that has seen nothing of it. The model that is written learned from all scenes."
)
CROSS_VALIDATED_SHARING = (
    "Accuracy on every scene by a model that did not learn from its patches, which share {} pixels with those that it "
    "learned from: optimistic. The model that is written learned from all scenes."
)
_FOLDS_NOTE = "Each scene was left out once: a model of all the others was judged on its patches."
_SETTINGS = ("loss", "optimizer", "schedule", "weight_decay", "averaging", "label_smoothing")
# What a model has over chance, from 0 to 1, up to which it has learned nothing: a quarter of what is called fair
# (Landis and Koch, 1977). No test of significance: the standard error of a million pixels is nearly 0.
_CHANCE = 0.05
_MONITORS = {"loss": "loss", "kappa": "kappa", "macro_f1": "macro F1", "mean_iou": "mean IoU"}


@dataclass(frozen=True, eq=False)
class Epoch:
    """The numbers of one epoch (counted from 1); those of training are taken on the way, with dropout."""

    number: int
    loss: float
    train: Scores
    validation_loss: Optional[float]
    validation: Optional[Scores]

    def merit(self, monitor: str) -> Tuple[float, ...]:
        """Return what makes one epoch better than another; equal merit means that the later one is kept."""
        loss = math.inf if self.validation_loss is None else self.validation_loss
        if monitor == "loss":
            return (-loss,)
        value = getattr(self.validation, monitor)
        return (-math.inf if value is None else value, -loss)


def tell_epoch(epoch: Epoch, epochs: int, context: Context) -> None:
    """Send the metrics of an epoch, and a line of the log."""
    text = f"Epoch {epoch.number}/{epochs}: loss {epoch.loss:.4f}"
    shown = epoch.train
    context.metric("train/loss", epoch.loss, epoch.number)
    for role, result in (("train", epoch.train), ("validation", epoch.validation)):
        for name in NUMBERS:
            value = getattr(result, name, None)
            if value is not None:
                context.metric(f"{role}/{name}", value, epoch.number)
    if epoch.validation is not None and epoch.validation_loss is not None:
        context.metric("validation/loss", epoch.validation_loss, epoch.number)
        text += f", validation loss {epoch.validation_loss:.4f}"
        shown = epoch.validation
    kappa = "n/a" if shown.kappa is None else f"{shown.kappa:.3f}"
    context.log(f"{text}, {'' if shown is epoch.train else 'validation '}kappa {kappa}")


class PartLike(Protocol):
    """The samples of a role, as the report sees them."""

    def __len__(self) -> int:
        """Return the number of patches or windows."""
        ...

    def facts(self) -> Dict[str, Any]:
        """Return what the card says of them."""
        ...

    def ground(self, check: Callable[[], None]) -> List[Ground]:
        """Return where they lie; ``check`` is called between pieces of it."""
        ...


class RolesLike(Protocol):
    """Who does what in a run, as the report sees it; see `trainingsets.Roles` and `densesets.DenseRoles`."""

    @property
    def parts(self) -> Mapping[str, PartLike]:
        """Return the parts that there are, by role."""
        ...

    @property
    def scenes(self) -> Sequence[str]:
        """Return the names of the scenes."""
        ...

    @property
    def shared_pixels(self) -> int:
        """Return the pixels that lie in training and in the set whose numbers are reported."""
        ...

    @property
    def choosing_pixels(self) -> int:
        """Return the pixels that lie in validation and in the test set."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Return how the sets came about."""
        ...

    def counts(self) -> Dict[str, Dict[str, int]]:
        """Return the samples per class value (as text) of each role."""
        ...


@dataclass(frozen=True, eq=False)
class RunFacts:
    """What the report tells of the run.

    Attributes:
        title: the method's title.
        seconds: duration.
        device: where it ran.
        history: one entry per epoch; empty for a forest.
        best_epoch: the epoch whose weights are kept; 0 for a forest.
        chose_epoch: whether the validation set chose it.
        chose_threshold: whether it chose from which probability a binary model maps the second class.
        monitor: by which number.
        extra: further (name, value) facts.
        folds: the scenes that were left out, each with what a model of the others makes of it.
        unit: what is counted: samples (of which each is a patch), or pixels.
        examples: pictures (PNG) of the kept weights' answers on some windows, of each `previews.TITLES`.
    """

    title: str
    seconds: float
    device: str
    history: Tuple[Epoch, ...] = ()
    best_epoch: int = 0
    chose_epoch: bool = False
    chose_threshold: bool = False
    monitor: str = "loss"
    extra: Tuple[Tuple[str, str], ...] = ()
    folds: Tuple[Fold, ...] = ()
    unit: str = "samples"
    examples: Tuple[Tuple[bytes, ...], ...] = ()

    @property
    def chosen(self) -> Tuple[str, ...]:
        """Return what the validation set chose."""
        return ("epoch",) * self.chose_epoch + ("threshold",) * self.chose_threshold


def versions(**more: str) -> Dict[str, str]:
    """Return the versions that a card states: Deepscape, Python, numpy and what is given."""
    return {"deepscape": plugin_version(), "python": platform.python_version(), "numpy": np.__version__, **more}


def accuracy_sentence(reported: str, chosen: Sequence[str], shared: int = 0, choosing: int = 0) -> str:
    """Return what the reported numbers are worth.

    Args:
        reported: the set that they are of: test, validation or none.
        chosen: what the validation set chose.
        shared: pixels of that set that the training has seen, too.
        choosing: pixels of the test set that validation has seen, too.
    """
    what = " and the ".join(chosen)
    if shared and not (reported == "validation" and chosen):
        return f"Accuracy on the {reported} samples, which share {shared} pixels with the training patches: optimistic."
    if reported == "test" and choosing and chosen:
        return (
            f"Accuracy on the test samples, which share {choosing} pixels with the validation patches, which chose the "
            f"{what}: optimistic."
        )
    if reported == "test":
        return "Accuracy on the test samples, which neither the training nor the choice of the epoch has seen."
    if reported == "validation":
        if chosen:
            return f"Accuracy on the validation samples, which also chose the {what} ({OPTIMISTIC})."
        return "Accuracy on the validation samples, which were used for nothing else."
    return "There are neither test nor validation samples: the accuracy of this model is unknown."


def useless_sentence(result: Scores, reported: str, card: Card) -> str:
    """Return the warning of a model that is no better than calling everything one class; empty for others.

    Neither kappa nor the mean recall is above what chance gives. Kappa alone is low, too, where a rare class is found
    and taken for others often, and the mean recall where a rare class is found seldom and then surely.

    Args:
        result: scores on the samples whose numbers are reported.
        reported: what they are: test or validation.
        card: of the model.
    """
    if result.kappa is None:
        return ""  # of samples of one class only
    supports = result.matrix.sum(axis=1)
    found = result.recall[supports > 0]
    if max(result.kappa, (found.mean() - 1 / len(found)) / (1 - 1 / len(found))) > _CHANCE:
        return ""
    network = card.kind == "network"
    model = "network" if network else "Random Forest"
    called = np.flatnonzero(result.matrix.sum(axis=0))
    if len(called) == 1:
        text = f"the {model} calls everything '{card.classes[called[0]].name}'"
    else:
        most, share = card.classes[int(supports.argmax())].name, float(supports.max() / supports.sum())
        text = (
            f"the {model} is hardly better than chance (kappa {reports.decimal(result.kappa)}): it is right for "
            f"{reports.percent(result.overall_accuracy)}, and calling everything '{most}' would be for "
            f"{reports.percent(share)}"
        )
    more = "Train longer (EPOCHS), try another LEARNING_RATE" if network else "Give other bands or features"
    return (
        f"On the {reported} samples {text}. It has learned nothing yet: look whether the labels lie on what they name. "
        f"{more}, or give more labels."
    )


def finish(
    card: Card,
    roles: RolesLike,
    run: RunFacts,
    result: Optional[Scores],
    reported: str,
    output: str,
    report: str,
    context: Context,
) -> Tuple[Card, TrainResult, Callable[[], None]]:
    """Return the finished card, the job's result, and what writes the report (nothing where none is asked for)."""
    plain: Dict[str, Any] = {} if result is None else metrics_dict(result, card.classes)
    shared = sum(fold.shared_pixels for fold in run.folds) if run.folds else roles.shared_pixels
    if run.folds:
        sentence = CROSS_VALIDATED_SHARING.format(shared) if shared else CROSS_VALIDATED
    else:
        sentence = accuracy_sentence(reported, run.chosen, shared, roles.choosing_pixels)
    context.log(sentence)
    if result is not None:
        context.log(
            f"Overall accuracy {reports.percent(result.overall_accuracy, 2)}, "
            f"kappa {reports.decimal(result.kappa, 4)}, macro F1 {reports.decimal(result.macro_f1, 4)}, "
            f"mean IoU {reports.decimal(result.mean_iou, 4)}."
        )
        useless = useless_sentence(result, reported, card)
        if useless:
            context.warn(useless)
    about: Dict[str, Any] = {"accuracy_set": reported, "sentence": sentence}
    about["optimistic"] = reported == "validation" and bool(run.chosen)
    if run.folds:
        about["cross_validation"] = fold_summary(run.folds)
    card = replace(
        card,
        metrics={**plain, **about, "best_epoch": run.best_epoch},
        training={
            "datasets": {role: part.facts() for role, part in roles.parts.items()},
            "counts": roles.counts(),
            "shared_pixels": shared,
            "field": _field(roles, card, context),
            "seconds": round(run.seconds, 1),
        },
    )
    path = report if not report or report.lower().endswith((".html", ".htm")) else report + ".html"
    answer = TrainResult(
        output=output,
        report=path,
        accuracy_set=reported,
        overall_accuracy=None if result is None else result.overall_accuracy,
        kappa=None if result is None else result.kappa,
        macro_f1=None if result is None else result.macro_f1,
        mean_iou=None if result is None else result.mean_iou,
        metrics={**plain, **about},
        best_epoch=run.best_epoch,
        parameter_count=card.parameter_count,
        shared_pixels=shared,
        warnings=tuple(context.warnings),
    )

    def write() -> None:
        if not path:
            return
        try:
            reports.write_page(path, training_page(card, roles, run, result, tuple(context.warnings)))
        except (BadInput, DiskFull) as error:
            raise type(error)(error.message, f"{error.remedy} The model is complete: '{output}'.") from error

    return card, answer, write


def _field(roles: RolesLike, card: Card, context: Context) -> Dict[str, Any]:
    """Return where the model has learned: what it was fitted to, and what chose the epoch; see `trainingground`."""
    parts = [part for role, part in roles.parts.items() if role != "test"]
    grounds = [ground for part in parts for ground in part.ground(context.check)]
    # The card of a model that is trained further still tells of its first training.
    return written(grounds, card.training if card.settings.get("initial_model") else None)


def training_page(
    card: Card, roles: RolesLike, run: RunFacts, result: Optional[Scores], warnings: Tuple[str, ...]
) -> str:
    """Return the report's HTML."""
    sections = [
        Section("Warnings", reports.warnings_list(warnings)),
        _accuracy(card, run, result),
        Section("Scenes left out", _folds(run), _FOLDS_NOTE),
        Section("Training curves", _curves(run), _curves_note(run)),
    ]
    if result is not None:
        sections += [
            Section(
                "Confusion matrix",
                reports.matrix_table(result.matrix, card.classes, columns="Prediction"),
                "Rows are the reference, columns what the model says; the deeper, the larger the share of the row.",
            ),
            Section("Accuracy per class", reports.scores_table(card.metrics)),
        ]
    sections += [
        Section("Examples", reports.gallery(TITLES, run.examples), _examples_note(roles)),
        Section(f"Classes and {run.unit}", _samples(card, roles, run), " ".join(roles.notes)),
        Section("Bands", _bands(card), "Means and deviations are those of the training patches; the model is given "
                "(value - mean) / deviation." if card.kind == "network" else ""),
        Section("The run", reports.facts(_facts(card, roles, run))),
    ]  # fmt: skip
    scenes = roles.scenes
    scene = scenes[0] if len(scenes) == 1 else f"{len(scenes)} scenes"
    return reports.page(
        f"{run.title}: training report",
        sections,
        subtitle=f"{scene + ' · ' if scene else ''}{len(card.classes)} classes · {card.created[:10]}",
        footer=f"Deepscape {card.versions.get('deepscape', '')}",
    )


def _accuracy(card: Card, run: RunFacts, result: Optional[Scores]) -> Section:
    figures = []
    if result is not None:
        samples = f"of {reports.grouped(result.matrix.sum())} {run.unit}"
        figures = [
            ("Overall accuracy", reports.percent(result.overall_accuracy), samples),
            ("Kappa", reports.decimal(result.kappa), "agreement beyond chance"),
            ("Macro F1", reports.decimal(result.macro_f1), "mean over classes"),
            ("Mean IoU", reports.decimal(result.mean_iou), "mean over classes"),
        ]
    body = reports.numbers(figures) or reports.facts([("Accuracy", "n/a")])
    return Section("Accuracy", body, str(card.metrics["sentence"]))


def _folds(run: RunFacts) -> Markup:
    """Return the table of the scenes that were left out, with mean and deviation; nothing without."""
    if not run.folds:
        return Markup()
    summary = fold_summary(run.folds)
    rows: List[List[Any]] = [
        [fold["scene"], reports.grouped(fold["samples"]), *_digits(fold), fold["best_epoch"] or ""]
        for fold in summary["scenes"]
    ]
    for title, name in (("Mean", "mean"), ("Standard deviation", "deviation")):
        rows.append([title, "", *_digits(summary[name]), ""])
    head = ["Scene", "Patches", "Overall accuracy", "Kappa", "Macro F1", "Mean IoU", "Best epoch"]
    return reports.table(head, rows)


def _digits(numbers: Mapping[str, Any]) -> List[str]:
    return [reports.decimal(numbers[name]) for name in NUMBERS]


def _curves(run: RunFacts) -> Markup:
    if not run.history:
        return Markup()
    best = run.best_epoch
    loss: Dict[str, List[Optional[float]]] = {"training": [epoch.loss for epoch in run.history]}
    kappa: Dict[str, List[Optional[float]]] = {"training": [epoch.train.kappa for epoch in run.history]}
    if run.history[0].validation is not None:
        loss["validation"] = [epoch.validation_loss for epoch in run.history]
        kappa["validation"] = [epoch.validation.kappa if epoch.validation else None for epoch in run.history]
    return reports.curves("Loss", loss, best) + reports.curves("Kappa", kappa, best)


def _curves_note(run: RunFacts) -> str:
    chosen = (
        f"The weights of epoch {run.best_epoch} are kept, the best by validation {_MONITORS[run.monitor]}."
        if run.chose_epoch
        else f"The weights of the last epoch ({run.best_epoch}) are kept."
    )
    if run.folds:
        chosen = f"The model that is written, which learns from all scenes. {chosen}"
    return f"{chosen} Training numbers are taken while the network learns, on augmented patches and with dropout."


def _examples_note(roles: RolesLike) -> str:
    part = "validation" if "validation" in roles.parts else "training"
    return f"Windows of the {part} part. Colours are those of the classes below; what is not labelled is dark grey."


def _samples(card: Card, roles: RolesLike, run: RunFacts) -> Markup:
    counts, unit = roles.counts(), "pixels" if run.unit == "pixels" else "patches"
    columns = {
        f"{role.capitalize()} {unit}": [reports.grouped(counts[role][str(entry.value)]) for entry in card.classes]
        for role in counts
    }
    return reports.legend_table(card.classes, columns)


def _bands(card: Card) -> Markup:
    rows = [
        [band.name or f"band {number}", f"{band.mean:.6g}", f"{band.std:.6g}"]
        for number, band in enumerate(card.sources[0].bands, start=1)
    ]
    return reports.table(["Band", "Mean", "Deviation"], rows)


def _facts(card: Card, roles: RolesLike, run: RunFacts) -> List[Tuple[str, Any]]:
    source, settings = card.sources[0], card.settings
    size = f"{source.patch_size} x {source.patch_size} pixels, {len(source.bands)} bands"
    arguments = ", ".join(f"{name} {value}" for name, value in card.arguments.items())
    rows: List[Tuple[str, Any]] = [
        ("Method", f"{run.title} ({card.network}{': ' + arguments if arguments else ''})"),
        ("Parameters", reports.grouped(card.parameter_count)),
        ("Patches", size),
        ("Pixel size", f"{card.res_m:.4g} m" if card.res_m else "unknown"),
        *run.extra,
    ]
    if card.kind == "network":
        rows += [
            ("Epochs", f"{len(run.history)} of {settings['epochs']}, patience {settings['patience']}"),
            ("Batch size, learning rate", f"{settings['batch_size']}, {settings['learning_rate']:g}"),
            *((name.capitalize().replace("_", " "), settings[name]) for name in _SETTINGS if settings.get(name)),
            ("Augmentation, class weights", f"{settings['augmentation']}, {settings['class_weights']}"),
        ]
        if card.threshold is not None:
            rows.append(("Threshold", f"'{card.classes[1].name}' from a probability of {card.threshold:g}"))
    rows += [
        ("Seed", settings.get("seed", "")),
        ("Shared pixels", _shared_text(card, roles, run)),
        ("Time", f"{run.seconds:.1f} s on {run.device}"),
        ("Versions", ", ".join(f"{name} {value}" for name, value in card.versions.items())),
    ]
    for role, part in roles.parts.items():
        unit = "windows" if run.unit == "pixels" else "patches"
        rows.append((f"{role.capitalize()} data", f"{part.facts()['name']}: {reports.grouped(len(part))} {unit}"))
    return rows


def _shared_text(card: Card, roles: RolesLike, run: RunFacts) -> str:
    """Return how many pixels the parts share that should not."""
    if len(roles.parts) < 2 and not run.folds:
        return "nothing to compare with"
    text = f"{reports.grouped(card.training['shared_pixels'])} between training and {card.metrics['accuracy_set']}"
    if not {"validation", "test"} <= set(roles.parts):
        return text
    return f"{text}, {reports.grouped(roles.choosing_pixels)} between validation and test"
