"""Comparing trained models: what a band, a network or a setting adds, over several seeds and the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from markupsafe import Markup

from ..tasks.classtable import ClassEntry
from ..tasks.context import Context
from ..tasks.errors import BadInput
from ..tasks.jobs import CompareRuns, CompareRunsResult
from ..tasks.protocol import plugin_version
from . import reports
from .crossvalidation import NUMBERS
from .pairing import (
    ADDS,
    FEWEST_SEEDS,
    HARMS,
    NOTHING,
    UNKNOWN,
    Difference,
    Spread,
    difference,
    leniency,
    spoken_difference,
    spoken_seeds,
    spoken_spread,
    spread,
)
from .reports import Section
from .runs import Group, Run, check_same_samples, differing, grouped_runs, open_run
from .textfiles import csv_text, write_text

TITLES = {
    "overall_accuracy": "Overall accuracy", "kappa": "Kappa", "macro_f1": "Macro F1", "mean_iou": "Mean IoU",
}  # fmt: skip
_OF_CLASS = {"f1": "F1", "iou": "IoU"}
_COLUMNS = (
    "group", "metric", "class", "runs", "mean", "deviation", "pairs", "difference", "standard_error", "verdict",
)  # fmt: skip
_READING = (
    "Runs of one seed are paired, for chance that both share cancels out. The mean difference stands with its standard "
    "error; within two of them there is no improvement, which is a result too. {leniency} Below "
    f"{FEWEST_SEEDS} seeds, and where all have the same difference, there is no verdict. "
    "The error is that of chance in training (and in the split, where it follows the seed); another choice of places "
    "may differ by more."
)
_MORE_SEEDS = f"train both with {FEWEST_SEEDS} or more"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A group beside the one that it is compared with.

    Attributes:
        group: the group.
        base: the other one; None for the base itself.
        seeds: those that both have, ascending.
    """

    group: Group
    base: Optional[Group]
    seeds: Tuple[int, ...]

    def spread(self, metric: str, value: Optional[int] = None) -> Spread:
        """Return mean and deviation of a number over the group's runs."""
        return spread([run.number(metric, value) for run in self.group.runs])

    def difference(self, metric: str, value: Optional[int] = None) -> Difference:
        """Return what the group has over the other one, from the pairs of runs."""
        if self.base is None:
            return Difference(None, None, 0)
        ours, theirs = self.group.by_seed(), self.base.by_seed()
        return difference(
            [(theirs[seed].number(metric, value), ours[seed].number(metric, value)) for seed in self.seeds]
        )


def compare_runs(job: CompareRuns, context: Context) -> CompareRunsResult:
    """Compare models by their cards; write the report and, where asked for, the table.

    Models that differ in nothing but the seed are a group; the groups are compared with that of BASELINE (or of the
    first model) by the differences of the runs of the same seed.

    Raises:
        BadInput: a model cannot be read or tells no accuracy, two are the same run, those of one seed were judged on
            different samples, or no group has a seed of the base.
        DiskFull: no room left.
    """
    runs: List[Run] = []
    for number, path in enumerate(dict.fromkeys(job.models)):
        context.check()
        runs.append(open_run(path))
        context.progress(number + 1, len(job.models), "reading models", "models")
    first = open_run(job.baseline) if job.baseline else runs[0]
    if all(run.path != first.path for run in runs):
        runs.insert(0, first)
    # The groups are named by what they have in place of the base: its run comes first.
    groups = grouped_runs([first, *(run for run in runs if run.path != first.path)])
    found = [_compared(group, groups[0], context) for group in groups]
    _warn(found, context)
    shown = next((each for each in found if each.base is not None and each.seeds), None)
    result = shown.difference(job.metric) if shown is not None else Difference(None, None, 0)
    for each in found[1:]:
        context.log(_sentence(each, job.metric))
    classes = _classes(runs)
    csv = ""
    if job.csv:
        csv = write_text(job.csv, ".csv", csv_text(_COLUMNS, _rows(found, classes)))
    output = reports.write_page(job.output, _page(found, classes, job.metric, context.warnings)) if job.output else ""
    return CompareRunsResult(
        output=output,
        csv=csv,
        difference=result.mean,
        standard_error=result.standard_error,
        verdict=result.verdict,
        warnings=tuple(context.warnings),
    )


def _compared(group: Group, base: Group, context: Context) -> Comparison:
    """Pair a group's runs with those of the base, of the same seed and the same samples."""
    if group is base:
        return Comparison(group, None, tuple(group.by_seed()))
    ours, theirs = group.by_seed(), base.by_seed()
    seeds = tuple(seed for seed in ours if seed in theirs)
    alone = sorted(set(ours) ^ set(theirs))
    if not seeds:
        raise BadInput(
            f"No seed is common to '{group.title}' ({_listed(ours)}) and '{base.title}' ({_listed(theirs)}).",
            "Train both with the same SEEDs: only runs of one seed are compared.",
        )
    if alone:
        context.warn(
            f"'{group.title}' and '{base.title}' do not both have seed {_listed(alone)}: what only one of them has is "
            "left out of the differences."
        )
    for seed in seeds:
        check_same_samples(theirs[seed], ours[seed])
    return Comparison(group, base, seeds)


def _listed(seeds: Any) -> str:
    return ", ".join(str(seed) for seed in seeds)


def _warn(found: Sequence[Comparison], context: Context) -> None:
    """Warn of what makes the differences say less than they seem to."""
    fewest = min(len(each.seeds) for each in found)
    if fewest < FEWEST_SEEDS:
        context.warn(
            f"{fewest} seed{' is' if fewest == 1 else 's are'} compared: chance moves accuracies from seed to seed, "
            f"and only {FEWEST_SEEDS} or more tell how far. With fewer there is no verdict."
        )
    if len(found) == 1:
        context.warn("All models differ in nothing but the seed: there is nothing to compare them with.")
    runs = [run for each in found for run in each.group.runs]
    if any(run.card.metrics.get("optimistic") for run in runs):
        context.warn(
            "Accuracies are of validation samples that also chose the epoch or the threshold: they are optimistic. "
            "Train with test samples."
        )
    shared = [run.name for run in runs if run.card.training.get("shared_pixels")]
    if shared:
        context.warn(
            f"The patches that {len(shared)} of {len(runs)} models were judged on share pixels with training patches "
            f"({shared[0]}{', ...' if len(shared) > 1 else ''}): what looks at more of the neighbourhood gains by that."
        )


def _classes(runs: Sequence[Run]) -> Tuple[ClassEntry, ...]:
    """Return the classes of all models, ascending; the first that knows a value names it."""
    known: Dict[int, ClassEntry] = {}
    for run in runs:
        for entry in run.card.classes:
            known.setdefault(entry.value, entry)
    return tuple(known[value] for value in sorted(known))


def _sentence(each: Comparison, metric: str) -> str:
    """Return in words what a group adds."""
    found, base = each.difference(metric), "" if each.base is None else each.base.title
    by = f"{TITLES[metric]} differs by {spoken_difference(found)} from '{base}' over {spoken_seeds(found.pairs)}"
    return {
        ADDS: f"'{each.group.title}' adds accuracy. {by}, more than two standard errors.",
        HARMS: f"'{each.group.title}' harms. {by}, more than two standard errors.",
        NOTHING: f"'{each.group.title}' is no improvement. {by}, within two standard errors.",
        UNKNOWN: f"What '{each.group.title}' adds is not known. {by}; {found.reason(_MORE_SEEDS)}.",
    }[found.verdict]


# --- table and report ------------------------------------------------------------------------------------------------


def _rows(found: Sequence[Comparison], classes: Sequence[ClassEntry]) -> Iterator[Dict[str, Any]]:
    """Yield the table's rows: one of each group and number; empty cells where a number is not defined."""
    numbers: List[Tuple[str, Optional[ClassEntry]]] = [(name, None) for name in NUMBERS]
    numbers += [(name, entry) for entry in classes for name in _OF_CLASS]
    for each in found:
        for name, entry in numbers:
            value = None if entry is None else entry.value
            level, gain = each.spread(name, value), each.difference(name, value)
            yield {
                "group": each.group.title,
                "metric": name,
                "class": "" if entry is None else entry.value,
                "runs": level.count,
                "mean": _cell(level.mean),
                "deviation": _cell(level.deviation),
                "pairs": gain.pairs if each.base is not None else "",
                "difference": _cell(gain.mean),
                "standard_error": _cell(gain.standard_error),
                "verdict": gain.verdict if each.base is not None else "",
            }


def _cell(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.6f}"


def _page(found: Sequence[Comparison], classes: Sequence[ClassEntry], metric: str, warnings: Sequence[str]) -> str:
    others = found[1:]
    runs = sum(len(each.group.runs) for each in found)
    together = f"{TITLES[metric]} of each run, and what it has over the one of its seed in '{found[0].group.title}'."
    sections = [
        Section("Warnings", reports.warnings_list(warnings)),
        Section("Result", _headlines(others, metric), " ".join(_sentence(each, metric) for each in others)),
        Section("Differences", _differences(found, metric), _reading(others)),
        Section("Seed by seed", _pairs(found, metric), together if others else ""),
        Section("Accuracy", _levels(found), "Mean and standard deviation over the runs."),
        Section(
            "Accuracy per class",
            _per_class(found, classes),
            "Mean and deviation over the runs, and the paired difference with its standard error.",
        ),
        Section("What differs", _facts(found)),
        Section("Runs", _runs(found)),
    ]
    return reports.page(
        "Comparison of runs",
        sections,
        subtitle=f"{runs} models in {len(found)} group{'s' if len(found) > 1 else ''} · judged on {_judged(found)}",
        footer=f"Deepscape {plugin_version()}",
    )


def _reading(others: Sequence[Comparison]) -> str:
    """Say what a verdict rests on; of groups with different numbers of seeds, that with the fewest."""
    return _READING.format(leniency=leniency(min(len(each.seeds) for each in others))) if others else ""


def _judged(found: Sequence[Comparison]) -> str:
    run = found[0].group.runs[0]
    unit = "pixels" if run.card.output == "pixels" else "samples"
    return f"{reports.grouped(sum(run.support.values()))} {run.card.metrics['accuracy_set']} {unit}"


def _headlines(others: Sequence[Comparison], metric: str) -> Markup:
    figures = []
    for each in others:
        gain = each.difference(metric)
        figures.append((each.group.title, gain.verdict, f"{TITLES[metric]} {spoken_difference(gain)}"))
    return reports.numbers(figures)


def _differences(found: Sequence[Comparison], metric: str) -> Markup:
    others = found[1:]
    if not others:
        return Markup()
    rows = []
    for each in others:
        gains = [spoken_difference(each.difference(name)) for name in NUMBERS]
        verdict = each.difference(metric).verdict.replace(" ", "\u00a0")  # on one line, as the numbers
        pairs = f"{spoken_seeds(len(each.seeds))}: {_listed(each.seeds)}"
        rows.append([each.group.title, *gains, pairs, verdict])
    head = [f"Against {found[0].group.title}", *TITLES.values(), "Compared", f"Verdict ({TITLES[metric]})"]
    return reports.table(head, rows)


def _pairs(found: Sequence[Comparison], metric: str) -> Markup:
    """Return a table of the runs by seed; one of a seed that is not in all groups has gaps."""
    if len(found) < 2:
        return Markup()
    seeds = sorted({run.seed for each in found for run in each.group.runs})
    base, rows = found[0].group.by_seed(), []
    for seed in seeds:
        row: List[Any] = [seed, _number(base.get(seed), metric)]
        for each in found[1:]:
            run = each.group.by_seed().get(seed)
            pair = [] if run is None or seed not in base else [(base[seed].number(metric), run.number(metric))]
            row += [_number(run, metric), spoken_difference(difference(pair))]
        rows.append(row)
    head = ["Seed", found[0].group.title]
    for each in found[1:]:
        head += [each.group.title, "difference"]
    return reports.table(head, rows)


def _number(run: Optional[Run], metric: str) -> str:
    return "n/a" if run is None else reports.decimal(run.number(metric))


def _levels(found: Sequence[Comparison]) -> Markup:
    rows = [
        [each.group.title, *(spoken_spread(each.spread(name)) for name in NUMBERS), len(each.group.runs)]
        for each in found
    ]
    return reports.table(["Group", *TITLES.values(), "Runs"], rows)


def _per_class(found: Sequence[Comparison], classes: Sequence[ClassEntry]) -> Markup:
    rows: List[List[Any]] = []
    for entry in classes:
        for name, title in _OF_CLASS.items():
            row: List[Any] = [reports.swatch(entry), title]
            for each in found:
                row.append(spoken_spread(each.spread(name, entry.value)))
                if each.base is not None:
                    row.append(spoken_difference(each.difference(name, entry.value)))
            rows.append(row)
    head = ["Class", ""]
    for each in found:
        head += [each.group.title] + ([] if each.base is None else ["difference"])
    return reports.table(head, rows, texts=2)


def _facts(found: Sequence[Comparison]) -> Markup:
    facts = [each.group.facts for each in found]
    rows = [[name.capitalize(), *(_fact(each, name) for each in facts)] for name in differing(facts)]
    if not rows:
        return Markup()
    return reports.table(["", *(each.group.title for each in found)], rows, texts=1 + len(found))


def _fact(facts: Mapping[str, str], name: str) -> str:
    """Return a fact in words; a dash where a model has no such setting."""
    return (facts[name] or "none") if name in facts else "\u2013"


def _runs(found: Sequence[Comparison]) -> Markup:
    rows = []
    for each in found:
        for run in each.group.runs:
            data = str(run.judged_by.get("hash", "")).removeprefix("sha256:")[:8]
            digits = [reports.decimal(run.number(name)) for name in NUMBERS]
            where = f"{run.card.metrics['accuracy_set']}: {run.judged_by.get('name', '')} {data}".strip()
            rows.append([run.name, each.group.title, where, run.seed, *digits])
    return reports.table(["Model", "Group", "Judged on", "Seed", *TITLES.values()], rows, texts=3)
