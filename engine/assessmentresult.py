"""What an assessment ends with: the numbers of the pairs that were counted, its warnings, and its files."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Dict, Optional, Set, Tuple

import numpy as np
import numpy.typing as npt

from ..tasks.classtable import ClassEntry, comparable_name
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import Assess, AssessResult
from . import assessmentdesign as design
from . import reports
from .assessmentreport import Findings, reach, report_page, write_matrix
from .assessmenttally import Indices, Tally, matrix_of
from .metrics import metrics_dict, only_class, scores

# Share of the map from which on a class that the reference lacks is told of.
_NOTABLE = 0.01


def result_of(
    job: Assess, table: Tuple[ClassEntry, ...], tally: Tally, reference: Tuple[str, Optional[design.Strata]],
    legend: Tuple[ClassEntry, ...], context: Context,
) -> AssessResult:  # fmt: skip
    """Return the job's result, and write its files; the log and the warnings say what the numbers are worth.

    Args:
        job: the assessment.
        table: the classes that occur.
        tally: what was counted.
        reference: its name, and the strata of a sample.
        legend: the classes that the map has.
        context: for the log and warnings.

    Raises:
        BadInput: the reference does not have the DESIGN, or a file cannot be written.
        DiskFull: no room left.
    """
    name, strata = reference
    values = [entry.value for entry in table]
    matrix = matrix_of(tally.pairs, values)
    found = scores(matrix)
    metrics: Dict[str, Any] = {**metrics_dict(found, table), "unmapped": tally.unmapped, "eroded": tally.eroded}
    if job.leave_out_training:
        metrics["left_out"] = tally.left_out
        context.log(f"{tally.left_out} reference pixels lie in the training area: they are left out.")
    polygons = _polygons(tally, table)
    if polygons:
        metrics["polygons"] = polygons
    _warn(job, tally, table, int(matrix.sum()), name, legend, context)
    proportions = None
    if strata is not None:
        estimate, metrics["design"] = design.stratified(tally, strata, table, name, context, legend)
        proportions = estimate.proportions.T
        found = scores(proportions)
        _estimated(metrics, metrics_dict(found, table), estimate.users)
    elif job.design == "clusters":
        intervals = design.bootstrapped(tally, values, job.block_size, context)
        if intervals is not None:
            metrics["design"] = intervals
    _only_one(job, matrix, table, name, metrics, context)
    if job.erode:
        context.log(f"ERODE {job.erode} leaves out {tally.eroded} reference pixels near another class.")
        if not tally.eroded:
            context.warn(
                f"ERODE {job.erode} leaves nothing out: no labelled pixel of '{name}' lies within {job.erode} px of "
                "another class. An edge towards ground without a label is no boundary of two classes; to leave that "
                "out, shrink the polygons with QGIS's 'Buffer' and a negative distance."
            )
        metrics["whole"] = metrics_dict(scores(matrix_of(tally.whole, values)), table)
    if tally.calibration is not None:
        metrics["calibration"] = tally.calibration.figures(table)
        if only_class(matrix) is not None:
            # Every threshold looks better the more it calls the one class.
            metrics["calibration"].pop("threshold", None)
    metrics["reach"] = reach(job, metrics, name, tally)
    context.log(metrics["reach"])
    findings = Findings(table, matrix, proportions, metrics, tally, name)
    return AssessResult(
        output=reports.write_page(job.output, report_page(job, findings, context)) if job.output else "",
        matrix=write_matrix(job.matrix, matrix, values) if job.matrix else "",
        areas=design.write_areas(job.areas, metrics, table) if job.areas else "",
        overall_accuracy=found.overall_accuracy, kappa=found.kappa, macro_f1=found.macro_f1, mean_iou=found.mean_iou,
        sample_count=int(matrix.sum()), groups=int(polygons.get("count", 0)),
        shared_pixels=tally.shared + tally.left_out, metrics=metrics, warnings=tuple(context.warnings),
    )  # fmt: skip


def _estimated(metrics: Dict[str, Any], estimates: Dict[str, Any], users: npt.NDArray[np.float64]) -> None:
    """Put the numbers of the estimated area shares in the place of those of the points, whose number is a choice.

    ``users``, the user's accuracies ``(K,)``, are known of each class of the map, whatever the points turned out to be.
    """
    for name in ("overall_accuracy", "kappa", "macro_f1", "mean_iou"):
        metrics[name] = estimates[name]
    for row, estimate in zip(metrics["classes"], estimates["classes"]):
        row.update({name: estimate[name] for name in ("precision", "recall", "f1", "iou")})
    for row, accuracy in zip(metrics["classes"], users.tolist()):
        if row["precision"] is None and not math.isnan(accuracy):
            row["precision"] = accuracy


def _only_one(
    job: Assess, matrix: Indices, table: Tuple[ClassEntry, ...], reference: str, metrics: Dict[str, Any],
    context: Context,
) -> None:  # fmt: skip
    """Warn where the reference holds one class only, and take away the intervals of what it does not tell."""
    only = only_class(matrix)
    if only is None:
        return
    name = table[only].name
    if "design" in metrics:
        design.without_means(metrics["design"])
    if job.design == "stratified":
        context.warn(f"All labelled points of '{reference}' are of the class '{name}': kappa and the means are n/a.")
        return
    remedy = "Give a reference that holds the other classes, too"
    if job.samples is not None and not job.background:
        remedy += f", or, where polygons show all of '{name}' in the map, set BACKGROUND to true"
    context.warn(
        f"'{reference}' holds one class only, '{name}': it tells how much of that class the map finds (producer's "
        "accuracy, here the overall accuracy as well), but not what the map takes for it wrongly: user's accuracies, "
        f"F1, IoU, their means and kappa are n/a. {remedy}."
    )


def _polygons(tally: Tally, table: Tuple[ClassEntry, ...]) -> Dict[str, Any]:
    """Return how many polygons of each class were compared, and how many carry their own class; empty without any."""
    if not tally.by_feature:
        return {}
    per_class: Counter[int] = Counter()
    right = 0
    for inside in tally.by_feature.values():
        reference = next(iter(inside))[0]
        per_class[reference] += 1
        own = inside[(reference, reference)]
        right += all(own > count for pair, count in inside.items() if pair[1] != reference)
    names = {entry.value: entry.name for entry in table}
    return {
        "count": len(tally.by_feature),
        "per_class": {names[value]: count for value, count in sorted(per_class.items())},
        "majority_right": right,
    }


def _warn(
    job: Assess, tally: Tally, table: Tuple[ClassEntry, ...], samples: int, reference: str,
    legend: Tuple[ClassEntry, ...], context: Context,
) -> None:  # fmt: skip
    """Tell of pixels without a map value, of classes that only one of map and reference has, and of training ground."""
    if tally.unmapped:
        share = tally.unmapped / (samples + tally.unmapped)
        context.warn(
            f"The map is no-data on {tally.unmapped} reference pixels ({100 * share:.1f} %); they are left out."
        )
    references = {pair[0] for pair in tally.pairs}
    known = {pair[1] for pair in tally.pairs} | {entry.value for entry in legend}
    strange = [entry for entry in table if entry.value in references - known]
    if legend and strange:
        context.warn(
            f"The map has no class {', '.join(_asked(entry, legend) for entry in strange)}, which '{reference}' holds: "
            "all its pixels count as errors. Check that both use the same classes; CROSSWALK turns those of the "
            "reference into those of the map."
        )
    # A stratified sample looks for every class of the map; and of a reference of one class another warning speaks.
    if job.design != "stratified" and len(references) > 1:
        _warn_of_absent(tally, (*legend, *table), references, not legend or bool(known - references), context)
    # The estimates of a stratified sample are those of the map with its training ground: see `assessmentreport.reach`.
    if tally.shared and job.design != "stratified":
        _warn_of_shared(tally, table, samples, context)


def _asked(entry: ClassEntry, legend: Tuple[ClassEntry, ...]) -> str:
    """Return the name of a class, with that of the map's class that differs in case and spaces alone."""
    near = [own.name for own in legend if comparable_name(own.name) == comparable_name(entry.name)]
    return f"'{entry.name}'" + (f" (did you mean '{near[0]}'?)" if near else "")


def _warn_of_absent(
    tally: Tally, entries: Tuple[ClassEntry, ...], references: Set[int], likely: bool, context: Context
) -> None:
    """Warn of classes of the map that the reference lacks, where much of the map is of them.

    Args:
        tally: what was counted.
        entries: names of the classes.
        references: the classes of the reference.
        likely: whether the map may have others: else its pixels need not be counted.
        context: takes the warning.
    """
    if not likely:
        return
    try:
        shares, pixels = design.class_shares(tally.mapped, context)
    except BadInput:  # outside the reference, where nothing was counted
        return
    names = {entry.value: entry.name for entry in entries}
    compared: Counter[int] = Counter()
    for (_, mapped), count in tally.pairs.items():
        compared[mapped] += count
    # Where the reference covers what the map calls so, it says that this is another class.
    absent = [
        (names.get(value, f"Class {value}"), share)
        for value, share in sorted(shares.items(), key=lambda item: -item[1])
        if value not in references and share >= _NOTABLE and compared[value] < share * pixels / 2
    ]
    if not absent:
        return
    parts = [f"no '{name}', which is {100 * share:.0f} % of the map" for name, share in absent]
    them = "it" if len(parts) == 1 else "them"
    told = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    context.warn(f"The compared pixels of the reference hold {told}: what is said here does not speak of {them}.")


def _warn_of_shared(tally: Tally, table: Tuple[ClassEntry, ...], samples: int, context: Context) -> None:
    """Warn of reference pixels where the map's model has learned, and say what can be done."""
    share = f"{tally.shared} of {samples} reference pixels ({100 * tally.shared / samples:.1f} %)"
    field = tally.field
    if field.windows:
        labelled = f", in which {field.labelled} labelled pixels trained or validated it" if field.labelled else ""
        told = (
            f"{share} lie inside the windows that the map's model was trained in{labelled}: on what carried a label "
            "the accuracy is better than elsewhere."
        )
    else:
        told = (
            f"{share} lie in the training area, where the map's model has learned: the accuracy is better than "
            "elsewhere."
        )
    references: Counter[int] = Counter()
    for (own, _), count in tally.pairs.items():
        references[own] += count
    lost = [f"'{entry.name}'" for entry in table if 0 < references[entry.value] <= tally.shared_classes[entry.value]]
    remedy = "Use reference samples apart from it" if not field.windows else "Use reference samples apart from them"
    if lost:
        context.warn(f"{told} {remedy}; LEAVE_OUT_TRAINING would leave none of {', '.join(lost)}.")
    else:
        context.warn(f"{told} {remedy}, or set LEAVE_OUT_TRAINING to true.")
