"""The page of an assessment: what the numbers are, how far they carry, and what they were counted from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.jobs import Assess
from . import reports
from .assessmenttally import Indices, Tally
from .metrics import only_class
from .reportfigures import matrix_of_shares, plot
from .reports import Section, decimal, grouped, percent, swatch
from .textfiles import write_text
from .wording import decimals_of

# Thresholds that lie nearer to each other are not both marked in a figure: their texts would lie on each other.
_APART = 0.15
_MOST_DIGITS = 6
_NAMES = (
    ("overall_accuracy", "Overall accuracy"),
    ("kappa", "Kappa"),
    ("macro_f1", "Mean F1"),
    ("mean_iou", "Mean IoU"),
)


@dataclass(frozen=True)
class Findings:
    """What an assessment found.

    Attributes:
        table: the classes that occur.
        matrix: ``(K, K)`` counts, rows = reference, columns = map.
        proportions: the same as estimated shares of the map's area; None without a stratified sample.
        metrics: of the result.
        tally: what was counted.
        reference: name of the reference.
    """

    table: Tuple[ClassEntry, ...]
    matrix: Indices
    proportions: Optional[npt.NDArray[np.float64]]
    metrics: Dict[str, Any]
    tally: Tally
    reference: str


# --- how far the numbers carry ---------------------------------------------------------------------------------------


def reach(job: Assess, metrics: Dict[str, Any], reference: str, tally: Tally) -> str:
    """Say how far the figures carry."""
    samples, design, polygons = metrics["samples"], metrics.get("design"), metrics.get("polygons")
    if job.design == "stratified":
        return _reach_of_points(job, metrics, tally) + _faultless(metrics, "points")
    if design:
        return _reach_of_clusters(job, samples, design, polygons) + _faultless(metrics, design["what"])
    if polygons:
        return (
            f"{_clusters(samples, polygons)} They are no probability sample, so no confidence interval is given, and "
            "the figures hold for these places, not for the whole map."
        )
    if job.samples is not None and not job.background:
        return (
            f"{samples} reference points. Nothing says that they are a probability sample of the map, so no confidence "
            "interval is given, and the figures hold for these places, not for the whole map."
        )
    return (
        f"{samples} pixels of '{reference}'{_around(job)}: neighbours repeat each other, and errors of the reference "
        "count as errors of the map. They are no probability sample, so no confidence interval is given."
    )


def _reach_of_points(job: Assess, metrics: Dict[str, Any], tally: Tally) -> str:
    told = (
        f"Estimated for {_estimated_part(job.leave_out_training)} from {metrics['samples']} points that were drawn at "
        "random in each of its classes; the 95 % intervals are those of the sampling (Olofsson et al. 2014; F1 and "
        "IoU: Stehman 2014)."
    )
    if not tally.shared:
        return told
    where = "inside the windows that the model was trained in" if tally.field.windows else "in the training area"
    return (
        f"{told} {tally.shared} of the points lie {where}: that is a part of the map, sampled like the rest of it, and "
        "the estimates include it as they should."
    )


def _around(job: Assess) -> str:
    return " and the background around its polygons" if job.background else ""


def _estimated_part(leaves_out: bool) -> str:
    return "the map outside the training area" if leaves_out else "the whole map"


def _clusters(samples: int, polygons: Dict[str, Any]) -> str:
    count = polygons["count"]
    each = ", ".join(f"{name} {number}" for name, number in polygons["per_class"].items())
    return (
        f"{count} polygons are {count} clusters, not {samples} independent pixels: the pixels of one polygon tend to "
        f"be right or wrong together ({polygons['majority_right']} of {count} polygons have most pixels in their own "
        f"class). Polygons per class: {each}."
    )


def _reach_of_clusters(job: Assess, samples: int, design: Dict[str, Any], polygons: Optional[Dict[str, Any]]) -> str:
    drawn = f"The 95 % intervals come from drawing the {design['units']} {design['what']} again, 1000 times. "
    if job.block_size is not None:
        return drawn + (
            "They show how much the numbers vary from place to place in this reference, as far as blocks are larger "
            "than the distance at which errors are alike; they do not speak of places outside it."
        )
    start = f"{_clusters(samples, polygons)} " if polygons else f"{samples} reference points. "
    return start + drawn + "They hold for the whole map only if the clusters were drawn at random."


def _faultless(metrics: Dict[str, Any], what: str) -> str:
    """Say why there is no interval where there is no error; empty where there is one."""
    if not metrics.get("design") or np.trace(metrics["matrix"]) < metrics["samples"]:
        return ""
    return (
        f" No error was seen in these {what}, so that they cannot tell how wide the intervals are: that is not the "
        "same as a map without errors."
    )


# --- the page --------------------------------------------------------------------------------------------------------


def report_page(job: Assess, findings: Findings, context: Context) -> str:
    """Return the whole page."""
    metrics, table, counts = findings.metrics, findings.table, findings.matrix
    counted = _units_of(findings)
    sections = [
        Section("Warnings", reports.warnings_list(context.warnings)),
        Section("Accuracy", _headline(findings), metrics["reach"]),
        _estimates(findings),
        Section("Classes", reports.scores_table(metrics) + _class_intervals(findings), _means(findings)),
        _eroded(job, findings),
        Section(
            "Confusion matrix",
            # Of points whose number in each class was chosen, sums across classes tell nothing.
            matrix_of_shares(findings.proportions, table, "all")
            if findings.proportions is not None
            else reports.matrix_table(counts, table),
            "Estimated shares of the map's area: rows are the reference, columns the map."
            if findings.proportions is not None
            else f"Counted {counted}: rows are the reference, columns the map.",
        ),
        _counts_of_points(findings),
        _shares(findings),
        *_calibration(metrics.get("calibration") or {}),
        Section("What was compared", reports.facts(_facts(job, findings))),
    ]
    return reports.page("Accuracy of the map", sections, subtitle=findings.tally.mapped.name)


def _shares(findings: Findings) -> Section:
    """Return the matrix as shares of its rows and of its columns."""
    weighted = findings.matrix if findings.proportions is None else findings.proportions
    # Of a reference of one class, every column would be all right or all wrong.
    told = 1 if findings.proportions is None and only_class(findings.matrix) is not None else 2
    pieces = Markup('<div class="sides">')
    for of, title, note in (
        (
            "rows",
            "Of each row",
            "what the map makes of a class of the reference; diagonal: producer's accuracy, recall",
        ),
        ("columns", "Of each column", "what a class of the map is in truth; diagonal: user's accuracy, precision"),
    )[:told]:
        table = matrix_of_shares(weighted, findings.table, of)
        pieces += Markup("<div><p><b>{}</b>: {}</p>{}</div>").format(title, note, table)
    return Section("Confusion matrix, shares", pieces + Markup("</div>"))


def _units_of(findings: Findings) -> str:
    return "points" if findings.proportions is not None else "pixels"


def _means(findings: Findings) -> str:
    if findings.proportions is None:
        return ""
    return (
        f"Estimated for {_estimated_part(findings.tally.leaves_out)}. Reference and Map count the points alone, whose "
        "number in each class was chosen."
    )


def _headline(findings: Findings) -> Markup:
    metrics = findings.metrics
    design = metrics.get("design") or {}
    polygons = metrics.get("polygons", {}).get("count", 0)
    counted = f"{grouped(metrics['samples'])} {_units_of(findings)}"
    if polygons:
        counted += f" in {polygons} polygons"
    only = only_class(findings.matrix)
    if only is not None:
        counted += f", all of them {findings.table[only].name}"
    hints = {"overall_accuracy": counted, "kappa": "agreement beyond chance", "macro_f1": "over the classes"}
    items = []
    for name, title in _NAMES:
        write = percent if name == "overall_accuracy" else decimal
        hint = hints.get(name, "over the classes")
        if design.get(name):
            hint = f"95 %: {_interval(design[name], name == 'overall_accuracy')}"
        items.append((title, write(metrics[name]), hint))
    return reports.numbers(items)


def _interval(interval: Optional[Sequence[float]], share: bool = False) -> str:
    if not interval:
        return "\u2013"
    low, high = (100 * end for end in interval) if share else interval
    digits = 1 if share else 3
    # 0.9997 to 1: ends that look alike would say that there is no doubt.
    while low < high and f"{low:.{digits}f}" == f"{high:.{digits}f}" and digits < _MOST_DIGITS:
        digits += 1
    return f"{low:.{digits}f} to {high:.{digits}f}{' %' if share else ''}"


def _estimates(findings: Findings) -> Section:
    """Return the area of each class, by the map and estimated from a stratified sample."""
    design = findings.metrics.get("design") or {}
    if findings.proportions is None:
        return Section("", Markup())
    unit = "ha" if design["area_unit"] == "hectares" else "pixels"
    rows: List[List[Any]] = []
    for entry, row in zip(findings.table, design["classes"]):
        mapped, area, half = row["mapped_area"], row["area"], row["area_interval"]
        # An estimate and its interval end at the same digit; pixels are counted whole.
        digits = decimals_of(half or area) if unit == "ha" else 0
        low, high = max(0.0, area - half), area + half
        found = [_number(value, digits) for value in (area, half, low, high)]
        own = _number(mapped, decimals_of(mapped) if unit == "ha" else 0)
        rows.append([swatch(entry), own, found[0], f"\u00b1 {found[1]}", f"{found[2]} to {found[3]}"])
    head = ["Class", f"Map ({unit})", f"Estimate ({unit})", "\u00b1 (95 %)", "95 % interval"]
    note = (
        "Counting pixels adds the map's errors to the areas; the estimate corrects them by what the points show. "
        + (
            "Areas are those on the ellipsoid, within 1 %."
            if unit == "ha"
            else "The map has no CRS, so areas are in pixels."
        )
        + (f" All are those of {_estimated_part(True)}." if findings.tally.leaves_out else "")
    )
    return Section("Area of the classes", reports.table(head, rows), note)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace(",", "\u202f")


def _class_intervals(findings: Findings) -> Markup:
    """Return a table of the intervals per class; empty without any."""
    design = findings.metrics.get("design")
    if not design:
        return Markup()
    names = [name for name in ("precision", "recall", "f1", "iou") if name in design["classes"][0]]
    titles = {"precision": "Precision (user's)", "recall": "Recall (producer's)", "f1": "F1", "iou": "IoU"}
    rows = [
        [swatch(entry), *(_interval(row[name]) for name in names)]
        for entry, row in zip(findings.table, design["classes"])
    ]
    found = reports.table(["Class", *(titles[name] for name in names)], rows)
    if any(row[name] is None for row in design["classes"] for name in names):
        found += Markup("<p>\u2013: not defined, or no error was found, which gives no interval.</p>")
    title = Markup('<p class="above"><b>95 % intervals</b></p>')
    return title + found


def _counts_of_points(findings: Findings) -> Section:
    if findings.proportions is None:
        return Section("", Markup())
    return Section(
        "Confusion matrix, counted points",
        reports.table(
            ["Reference \\ Map", *(entry.name for entry in findings.table)],
            [
                [swatch(entry), *(grouped(count) for count in row)]
                for entry, row in zip(findings.table, findings.matrix.tolist())
            ],
        ),
        "Points, not shares: how many there are in each class of the map was chosen by the design.",
    )


def _eroded(job: Assess, findings: Findings) -> Section:
    """Return the numbers with and without the boundaries, side by side."""
    whole = findings.metrics.get("whole")
    if not whole:
        return Section("", Markup())
    own = findings.metrics
    rows: List[List[Any]] = [["Pixels", grouped(whole["samples"]), grouped(own["samples"])]]
    for name, title in _NAMES:
        write = percent if name == "overall_accuracy" else decimal
        rows.append([title, write(whole[name]), write(own[name])])
    for entry, full, eroded in zip(findings.table, whole["classes"], own["classes"]):
        rows.append([Markup("F1 of ") + swatch(entry), decimal(full["f1"]), decimal(eroded["f1"])])
        rows.append([Markup("IoU of ") + swatch(entry), decimal(full["iou"]), decimal(eroded["iou"])])
    note = (
        f"Without boundaries, reference pixels within a disc of {job.erode} px of another class are left out, as "
        "benchmarks do that do not score where people would not agree. All other numbers of this page "
        "are without boundaries."
    )
    return Section("With and without boundaries", reports.table(["", "All pixels", "Without boundaries"], rows), note)


# --- probabilities ---------------------------------------------------------------------------------------------------


def _calibration(figures: Dict[str, Any]) -> List[Section]:
    if not figures:
        return []
    bins = [row for row in figures["bins"] if row["pixels"]]
    drawn = plot(
        "Accuracy by confidence",
        {"accuracy": [(row["confidence"], row["accuracy"]) for row in bins]},
        "probability of the mapped class",
        "share that is right",
        diagonal=True,
        dots=True,
        bars=[(row["low"], row["high"], row["pixels"] / figures["pixels"]) for row in bins],
    )
    rows = [
        [
            f"{row['low']:.1f} to {row['high']:.1f}",
            grouped(row["pixels"]),
            percent(row["confidence"]),
            percent(row["accuracy"]),
        ]
        for row in bins
    ]
    error = figures["expected_calibration_error"]
    numbers = reports.numbers(
        [
            ("Expected calibration error", decimal(error), "mean gap to the diagonal"),
            ("Brier score", decimal(figures["brier"]), "squared error; 0 is best"),
        ]
    )
    sides = Markup('<div class="sides">') + drawn
    sides += reports.table(["Confidence", "Pixels", "Mean confidence", "Right"], rows) + Markup("</div>")
    sure = sum((row["confidence"] - row["accuracy"]) * row["pixels"] for row in bins) / figures["pixels"]
    side = "less" if sure > 0 else "more"
    note = (
        "Of pixels whose mapped class has a probability of 0.8, 80 % should be right (the dashed line). "
        f"On average the map is right {side} often than its probabilities say, by {100 * abs(sure):.1f} percentage "
        "points. Pale bars: share of the pixels."
    )
    sections = [Section("Calibration of the probabilities", numbers + sides, note)]
    if "threshold" in figures:
        sections.append(_threshold(figures["threshold"]))
    return sections


def _threshold(figures: Dict[str, Any]) -> Section:
    curve, best, half, name = figures["curve"], figures["best"], figures["half"], figures["name"]
    own = figures["map"]
    marks = [(best["threshold"], best["f1"], f"best F1 and IoU: {best['threshold']:.2f}")]
    # Two marks beside each other would be written over each other.
    if own["threshold"] is not None and abs(own["threshold"] - best["threshold"]) >= _APART:
        marks.append((own["threshold"], own["f1"], f"this map: {own['threshold']:.2f}"))
    by_threshold = plot(
        f"{name} by threshold",
        {
            title: [(row["threshold"], row[key]) for row in curve]
            for title, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"), ("IoU", "iou"))
        },
        "threshold of the probability",
        marks=marks,
        rule=True,
    )
    trade = plot(
        "Precision and recall",
        {"": [(row["recall"], row["precision"]) for row in curve]},
        "recall",
        "precision",
        marks=[(best["recall"], best["precision"], f"{best['threshold']:.2f}")]
        if best["precision"] is not None
        else (),
    )
    rows = [
        [title, decimal(row["threshold"], 2), *(decimal(row[key]) for key in ("precision", "recall", "f1", "iou"))]
        for title, row in (("This map, as it is", own), ("Threshold 0.5", half), ("Best F1 and best IoU", best))
    ]
    note = (
        f"What another threshold of the class {name} would give on these pixels. Average precision: "
        f"{figures['average_precision']:.3f}. A threshold that is chosen here looks better here than elsewhere: choose "
        "it on validation pixels."
    )
    if own["threshold"] is None:
        note += " No threshold of these probabilities makes this map."
    head = ["", "Threshold", "Precision", "Recall", "F1", "IoU"]
    return Section("Threshold", by_threshold + trade + reports.table(head, rows), note)


# --- facts and files -------------------------------------------------------------------------------------------------


def _facts(job: Assess, findings: Findings) -> List[Tuple[str, Any]]:
    tally, metrics = findings.tally, findings.metrics
    rows: List[Tuple[str, Any]] = [
        ("Map", job.map.label or job.map.path),
        ("Reference", findings.reference),
        ("Design", _design_words(job, metrics)),
        (f"Compared {_units_of(findings)}", grouped(metrics["samples"])),
        (f"Reference {_units_of(findings)} without a map value", grouped(tally.unmapped)),
    ]
    if job.probabilities is not None:
        rows.append(("Probabilities", job.probabilities.label or job.probabilities.path))
        missing = metrics["calibration"].get("missing", 0)
        if missing:
            rows.append(("Compared pixels without probabilities", grouped(missing)))
    if job.erode:
        rows.append((f"Reference pixels within {job.erode} px of another class", grouped(tally.eroded)))
    if job.crosswalk:
        rows.append(("Classes turned into those of the map by", Path(job.crosswalk).name))
    if job.background:
        rows.append(("The map outside the polygons of the reference", "background, class 0"))
    where = "inside the windows of the training" if tally.field.windows else "in the training area"
    rows.append((f"Reference {_units_of(findings)} {where}", _in_field(job, tally)))
    return rows


def _in_field(job: Assess, tally: Tally) -> str:
    """Say how many reference pixels the training has seen, and what became of them."""
    missing = "; ".join(tally.field.unknown)
    if not tally.field.known:
        return f"not known: {missing}"
    text = f"{grouped(tally.left_out)}, left out" if job.leave_out_training else grouped(tally.shared)
    return f"at least {text}: {missing}" if missing else text


def _design_words(job: Assess, metrics: Dict[str, Any]) -> str:
    design = metrics.get("design")
    if not design:
        return "none: no probability sample, no interval"
    if job.design == "stratified":
        return f"stratified by the classes of the map, {grouped(design['units'])} points"
    by = f" by '{job.cluster_field}'" if job.cluster_field else ""
    return f"{grouped(design['units'])} {design['what']}{by}, bootstrapped"


def write_matrix(path: str, matrix: Indices, values: Sequence[int]) -> str:
    """Write a confusion matrix as OTB's ComputeConfusionMatrix does (a missing suffix ``.csv`` is added).

    Raises:
        DiskFull: no room left.
        BadInput: the folder does not exist or cannot be written.
    """
    labels = ",".join(str(value) for value in values)
    lines = [f"#Reference labels (rows):{labels}", f"#Produced labels (columns):{labels}"]
    lines += [",".join(str(int(count)) for count in row) for row in matrix]
    return write_text(path, ".csv", "\n".join(lines) + "\n")
