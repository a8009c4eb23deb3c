"""Training a Random Forest on the centre pixel of each patch, or on it with the patch's mean and deviation.

scikit-learn grows the trees; the model file keeps them as node arrays (nodearrays.py).
"""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any, Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.ensemble import RandomForestClassifier

from ..models.cards import Card
from ..tasks.context import Context
from ..tasks.jobs import TrainRandomForest, TrainResult
from .cardsources import band_statistics, card_source
from .crossvalidation import cross_validate, pooled
from .features import as_rows, forest_features
from .metrics import Scores, confusion_matrix, scores
from .modelfiles import save_model, with_suffix
from .nodearrays import Forest as Forest
from .nodearrays import forest_from_sklearn
from .patchpools import Part
from .trainingreport import RunFacts, finish, versions
from .trainingsets import Roles, open_plan, scene_settings

Array = npt.NDArray[Any]

# otb: the defaults of the Orfeo ToolBox's Random Forest (reference-systems.md, section 5).
PRESETS: Dict[str, Dict[str, Any]] = {
    "default": {"max_features": "sqrt"},
    "otb": {"max_features": "sqrt", "max_depth": 5, "min_samples_split": 10},
}


def train_random_forest(job: TrainRandomForest, context: Context) -> TrainResult:
    """Train a Random Forest on a patch dataset; write the model file and, where asked for, the report.

    Features: the centre pixel's bands, or these with the mean and deviation of the patch. Preset otb has the Orfeo
    ToolBox's defaults (depth 5, at least 10 samples to split a node, the square root of the number of features per
    split), for comparison. Classes are not weighted, as there. Nothing is chosen on the validation samples.

    Raises:
        BadInput: the datasets cannot be used together, or hold less than two training classes.
    """
    started = time.monotonic()
    output = with_suffix(job.output)
    plan = open_plan(job, context)
    roles = plan.roles

    def judge_fold(fold: Roles, inside: Context) -> Tuple[Scores, int, int]:
        centre, _ = band_statistics(fold.training, inside)
        grown, _ = _fit(job, fold, centre, inside)
        return _judge(grown, fold.parts["test"], job, centre, inside), 0, fold.shared_pixels

    folds, inside = cross_validate(plan.folds, [job.trees] * (len(plan.folds) + 1), judge_fold, context)
    mean, std = band_statistics(roles.training, inside)
    forest, sklearn_version = _fit(job, roles, mean, inside)
    reported = "test" if folds else next((role for role in ("test", "validation") if role in roles.parts), "none")
    if folds:
        result: Optional[Scores] = pooled(folds)
    else:
        result = _judge(forest, roles.parts[reported], job, mean, context) if reported != "none" else None
    scene = roles.training.pool.datasets[0].description.scene
    nodes = len(forest.feature)
    card = Card(
        kind="forest",
        network="random_forest",
        sources=(card_source(roles.training, mean, std),),
        classes=roles.classes,
        arguments={"features": job.features, "trees": job.trees, "preset": job.preset},
        res_m=scene.res_m,
        crs=scene.crs,
        settings={
            "seed": job.seed,
            "validation_share": job.validation_share,
            **scene_settings(job),
            **PRESETS[job.preset],
        },
        # What the fit decided: a feature and a threshold per inner node, class shares per leaf.
        parameter_count=2 * int(np.count_nonzero(forest.feature >= 0)) + forest.probabilities.size,
        versions=versions(sklearn=sklearn_version),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    facts = RunFacts(
        title="Random Forest",
        seconds=time.monotonic() - started,
        device="the CPU",
        folds=folds,
        extra=(("Nodes", f"{nodes} in {job.trees} trees"),),
    )
    card, answer, write_report = finish(card, roles, facts, result, reported, output, job.report, context)
    save_model(output, card, forest.tensors())
    write_report()
    return answer


def part_features(part: Part, kind: str, fill: Array, context: Context) -> npt.NDArray[np.float32]:
    """Return the features ``(N, F)`` of a part's patches."""
    size = part.pool.source.patch_size
    rows = []
    for numbers in part.chunks():
        context.check()
        rows.append(as_rows(forest_features(kind, part.physical(numbers), size, fill))[0])
    return np.concatenate(rows)


def _fit(job: TrainRandomForest, roles: Roles, mean: Array, context: Context) -> Tuple[Forest, str]:
    """Fit the trees a few at a time, so that progress is shown and a cancel is noticed."""
    rows = part_features(roles.training, job.features, mean, context)
    labels = roles.training.labels
    model = RandomForestClassifier(
        n_estimators=0, random_state=job.seed, n_jobs=context.threads() or -1, warm_start=True, **PRESETS[job.preset]
    )
    step = _trees_at_once(len(rows))
    for count in range(step, job.trees + step, step):
        context.check()
        model.set_params(n_estimators=min(count, job.trees))
        model.fit(rows, labels)
        context.progress(min(count, job.trees), job.trees, "training", "trees")
    return forest_from_sklearn(model, model.classes_.astype(np.int64), len(roles.classes)), str(sklearn.__version__)


def _judge(forest: Forest, part: Part, job: TrainRandomForest, mean: Array, context: Context) -> Scores:
    rows = part_features(part, job.features, mean, context)
    predicted = forest.predict_proba(rows, context.check).argmax(axis=1)
    classes = forest.probabilities.shape[1]
    return scores(confusion_matrix(part.labels, predicted, classes))


def _trees_at_once(samples: int) -> int:
    """Return how many trees are grown between two looks at a cancel: about half a second's worth."""
    return int(np.clip(200_000 // max(samples, 1), 2, 25))
