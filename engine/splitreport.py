"""The report of 'Is my accuracy real?': the same patches split in three ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
from markupsafe import Markup

from ..tasks.jobs import TrainResult
from ..tasks.protocol import plugin_version
from . import reports
from .crossvalidation import NUMBERS
from .pairing import (
    ADDS,
    HARMS,
    MORE_SEEDS,
    UNKNOWN,
    Difference,
    Spread,
    difference,
    leniency,
    spoken_difference,
    spoken_spread,
    spread,
)
from .reports import Section

_WAYS = {
    "random": (
        "at random",
        "Every patch by itself. Its neighbours, which look alike, and pixels of its own are in the other part.",
    ),
    "polygon": ("by polygon", "Whole polygons: what was drawn in one go is in one part."),
    "block": (
        "by block, with guard",
        "Whole blocks of the image; training patches that would share a pixel with a test patch are left out.",
    ),
}
_READING = (
    "The method, the patches and their number of epochs are the same; only the rule differs by which {share:.0%} of "
    "the patches became the test part. The number that tells how well places are mapped where nothing was labelled is "
    "the lowest one, by polygon or by block. In blocks with a guard fewer patches "
    "are left to learn from, which lowers accuracy a little too; blocks smaller than polygons cut these in two."
)


@dataclass(frozen=True, eq=False)
class SplitRuns:
    """What came of one way to split, over the seeds.

    Attributes:
        way: random, polygon or block.
        results: of each seed.
        patches: training and test patches of each seed.
    """

    way: str
    results: Tuple[TrainResult, ...]
    patches: Tuple[Tuple[int, int], ...]

    @property
    def title(self) -> str:
        """Return the way in words."""
        return _WAYS[self.way][0]

    def spread(self, metric: str) -> Spread:
        """Return mean and deviation of a number over the seeds."""
        return spread([getattr(result, metric) for result in self.results])

    @property
    def shared_pixels(self) -> float:
        """Return the mean of the pixels that training and test patches share."""
        return float(np.mean([result.shared_pixels for result in self.results]))


def careful_way(ways: Sequence[SplitRuns]) -> SplitRuns:
    """Return the way of lowest mean kappa among those that keep neighbours together, all but the first."""
    known = [way for way in ways[1:] if way.spread("kappa").mean is not None]
    return min(known, key=lambda way: way.spread("kappa").mean or 0.0, default=ways[-1])


def excess(ways: Sequence[SplitRuns]) -> Difference:
    """Return by how much the first way's kappa exceeds that of the most careful one, in pairs of seeds."""
    kappas = [[result.kappa for result in way.results] for way in (careful_way(ways), ways[0])]
    return difference(list(zip(*kappas)))


def verdict(ways: Sequence[SplitRuns]) -> str:
    """Return in a sentence or two how optimistic the random split is."""
    found, careful = excess(ways), careful_way(ways)
    if found.mean is None:
        return "Kappa is not defined for one of the splits: there are too few samples or classes to tell."
    others = ", ".join(f"{way.title} {spoken_spread(way.spread('kappa'))}" for way in ways[1:])
    numbers = f"Split at random, kappa is {spoken_spread(ways[0].spread('kappa'))}; {others}."
    by = spoken_difference(found)
    against = f"Beside the split {careful.title}, the most careful one here, the random split"
    told = {
        ADDS: f"{against} is optimistic by {by.lstrip('+')} (standard error), more than two standard errors.",
        HARMS: f"{against} says {by}: it is not optimistic.",
        UNKNOWN: f"{against} says {by}; {found.reason(MORE_SEEDS)}.",
    }.get(
        found.verdict,
        f"{against} says {by} (standard error), within two standard errors: these runs do not show that it is "
        "optimistic; more SEEDS tell more.",
    )
    if found.verdict in (ADDS, HARMS):
        told += f" {leniency(found.pairs)}"
    if len(ways) > 2:
        told += (
            f" It was chosen among {len(ways) - 1} for its lowest kappa by these same numbers, which widens the "
            "difference."
        )
    return f"{numbers} {told}"


def split_page(
    method: str, name: str, facts: Sequence[Tuple[str, str]], ways: Sequence[SplitRuns], share: float,
    warnings: Sequence[str],
) -> str:  # fmt: skip
    """Return the report's HTML.

    Args:
        method: what was trained.
        name: of the patch dataset.
        facts: of the run.
        ways: random first.
        share: of the test part.
        warnings: of the run.
    """
    figures = [
        (
            f"Kappa {way.title}",
            spoken_spread(way.spread("kappa")),
            f"{reports.grouped(way.shared_pixels)} shared pixels",
        )
        for way in ways
    ]
    sections = [
        Section("Warnings", reports.warnings_list(warnings)),
        Section("Answer", reports.numbers(figures), verdict(ways)),
        Section("Accuracy by split", _levels(ways), _READING.format(share=share)),
        Section("Accuracy per class", _per_class(ways), "F1, mean and deviation over the seeds."),
        Section("The splits", _explained(ways)),
        Section("The run", reports.facts(facts)),
    ]
    return reports.page(
        "Is my accuracy real?", sections, subtitle=f"{method} on {name}", footer=f"Deepscape {plugin_version()}"
    )


def _levels(ways: Sequence[SplitRuns]) -> Markup:
    rows: List[List[str]] = []
    for way in ways:
        learned, judged = (float(np.mean(counts)) for counts in zip(*way.patches))
        rows.append(
            [
                way.title,
                *(spoken_spread(way.spread(name)) for name in NUMBERS),
                reports.grouped(learned),
                reports.grouped(judged),
                reports.grouped(way.shared_pixels),
            ]
        )
    head = [
        "Split", "Overall accuracy", "Kappa", "Macro F1", "Mean IoU", "Training patches", "Test patches",
        "Shared pixels",
    ]  # fmt: skip
    return reports.table(head, rows)


def _per_class(ways: Sequence[SplitRuns]) -> Markup:
    rows = []
    for number, entry in enumerate(ways[0].results[0].metrics["classes"]):
        cells = [
            spoken_spread(spread([result.metrics["classes"][number]["f1"] for result in way.results])) for way in ways
        ]
        rows.append([entry["name"], entry["value"], *cells])
    return reports.table(["Class", "Value", *(way.title for way in ways)], rows)


def _explained(ways: Sequence[SplitRuns]) -> Markup:
    return reports.facts([(way.title.capitalize(), _WAYS[way.way][1]) for way in ways])
