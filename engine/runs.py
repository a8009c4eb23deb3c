"""Trained models as runs to be compared: what their cards say of accuracy, and by what they are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..models.cards import Card, CardBand, read_card
from ..models.registry import PATCH_NETWORKS, PIXEL_NETWORKS
from ..tasks.errors import BadInput

_MOST_NAMED = 6  # bands that a title lists
_BETWEEN_BANDS = "; "  # formulas may hold commas
# What a run has of its own, or of the machine that it ran on: no reason to tell it from another.
_OWN = ("seed", "device", "processes", "threads", "stopped", "find_rate")
_RATE = "learning rate"
_FOUND = "found by a range test"  # another one for each seed, which makes no other group
_TITLES = {entry.id: entry.title for entry in PATCH_NETWORKS + PIXEL_NETWORKS}
_TITLES["random_forest"] = "Random Forest"
# What every model is called by where any of these differ, and the arguments that differ among those of its network. Of
# all other facts names hold what is needed to tell models apart, at most so many if these do; a table has all of them.
_NAMING = ("bands", "network", "patch size")
_MOST_FACTS = 3


@dataclass(frozen=True, eq=False)
class Run:
    """One model.

    Attributes:
        path: its file.
        card: its card.
        seed: of its training.
        facts: by what it is told from others, everything but the seed; without those that its kind does not have.
    """

    path: str
    card: Card
    seed: int
    facts: Mapping[str, str]

    @property
    def name(self) -> str:
        """Return the file's name."""
        return Path(self.path).name

    @property
    def support(self) -> Dict[int, int]:
        """Return the samples (or pixels) of each class value that it was judged on; none of classes without any."""
        return {int(row["value"]): int(row["support"]) for row in self.card.metrics["classes"] if row["support"]}

    @property
    def judged_by(self) -> Mapping[str, Any]:
        """Return what the card says of the data that its numbers come from."""
        return dict(self.card.training.get("datasets", {}).get(self.card.metrics["accuracy_set"], {}))

    def number(self, metric: str, value: Optional[int] = None) -> Optional[float]:
        """Return one of the model's numbers, of a class value or of all; None where it is not defined."""
        if value is None:
            return self.card.metrics.get(metric)
        return next((row[metric] for row in self.card.metrics["classes"] if row["value"] == value), None)


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        title: what tells them from the other groups.
        runs: by ascending seed.
    """

    title: str
    runs: Tuple[Run, ...]

    @property
    def facts(self) -> Mapping[str, str]:
        """Return what the runs have in common, and between which numbers their rates lie where they were found."""
        facts = dict(self.runs[0].facts)
        if facts.get(_RATE) == _FOUND:
            rates = sorted(float(run.card.settings["learning_rate"]) for run in self.runs)
            ends = dict.fromkeys(f"{rate:.3g}" for rate in (rates[0], rates[-1]))
            facts[_RATE] = f"{_FOUND}: {' to '.join(ends)}"
        return facts

    def by_seed(self) -> Dict[int, Run]:
        """Return the run of each seed."""
        return {run.seed: run for run in self.runs}


def open_run(path: str) -> Run:
    """Read a model's card.

    Raises:
        BadInput: it cannot be read, or its accuracy is not known.
    """
    card = read_card(path)
    if card.metrics.get("accuracy_set", "none") == "none" or not card.metrics.get("classes"):
        raise BadInput(
            f"The accuracy of '{Path(path).name}' is not known: it was trained without test and validation samples.",
            "Train it again with samples split into training and test.",
        )
    return Run(path, card, int(card.settings.get("seed", 0)), _facts(card))


def _facts(card: Card) -> Dict[str, str]:
    source = card.sources[0]
    facts = {
        "bands": _BETWEEN_BANDS.join(_band(number, band) for number, band in enumerate(source.bands, start=1)),
        "network": _TITLES.get(card.network, card.network),
        "patch size": f"{source.patch_size} pixels",
        "scale and offset": ", ".join(
            f"{band.scale}, {band.offset}" for band in source.bands if (band.scale, band.offset) != (None, None)
        ),
        "no-data rule": source.nodata_rule,
    }
    named = {key.replace("_", " "): str(value) for key, value in card.settings.items() if key not in _OWN}
    if card.settings.get("find_rate"):
        named[_RATE] = _FOUND
    return {**facts, **named, **_arguments(card)}


def _arguments(card: Card) -> Dict[str, str]:
    """Return the arguments of a card's network, of a kind of their own as facts."""
    return {name.replace("_", " "): str(value) for name, value in sorted(card.arguments.items())}


def _band(number: int, band: CardBand) -> str:
    return band.formula if band.expression else band.name or f"band {number}"


# --- groups ----------------------------------------------------------------------------------------------------------


def grouped_runs(runs: Sequence[Run]) -> Tuple[Group, ...]:
    """Group runs that differ in nothing but the seed, in the order of their first runs.

    Runs that are alike and of one seed are told apart by the data that they learned from.

    Raises:
        BadInput: two of them are the same run.
    """
    found: Dict[Tuple[Tuple[str, str], ...], List[Run]] = {}
    for run in runs:
        found.setdefault(tuple(sorted(run.facts.items())), []).append(run)
    parted: List[List[Run]] = []
    for alike in found.values():
        parted += [alike] if len({run.seed for run in alike}) == len(alike) else _by_training_data(alike)
    titles = _titles([members[0] for members in parted])
    return tuple(
        Group(title, tuple(sorted(members, key=lambda run: run.seed))) for title, members in zip(titles, parted)
    )


def _by_training_data(alike: Sequence[Run]) -> List[List[Run]]:
    """Part runs by the name and contents of their training data."""
    parted: Dict[str, List[Run]] = {}
    for run in alike:
        data = run.card.training.get("datasets", {}).get("training", {})
        known = f"{data.get('name', '')} ({str(data.get('hash', '')).removeprefix('sha256:')[:8]})"
        told = Run(run.path, run.card, run.seed, {**run.facts, "training data": known})
        same = next((other for other in parted.get(known, []) if other.seed == run.seed), None)
        if same is not None:
            raise BadInput(
                f"'{same.path}' and '{run.path}' are alike in everything, and both of seed {run.seed}.",
                "Give one of them, or train one with another SEED.",
            )
        parted.setdefault(known, []).append(told)
    return list(parted.values())


def differing(facts: Sequence[Mapping[str, str]]) -> List[str]:
    """Return the names of the facts that are not the same in all."""
    names = list(dict.fromkeys(name for each in facts for name in each))
    return [name for name in names if len({each.get(name, "") for each in facts}) > 1]


def _titles(runs: Sequence[Run]) -> List[str]:
    """Return what the groups of these runs are called by: what sets them apart, and as little more as can be.

    A setting that only another kind of network has is no part of a name, and neither is what no name needs.
    """
    facts = [run.facts for run in runs]
    naming = [name for name in differing(facts) if name in _NAMING]
    titles = []
    for run in runs:
        kin = differing([other.facts for other in runs if other.card.network == run.card.network])
        titles.append(_title(run.facts, facts[0], [*naming, *(name for name in kin if name in _arguments(run.card))]))
    for title in dict.fromkeys(titles):
        alike = [number for number, other in enumerate(titles) if other == title]
        # They are of one network: where there are others, its name stands in the title.
        more = _shortest([facts[number] for number in alike])
        for number in alike:
            titles[number] = "; ".join(filter(None, (title, _title(facts[number], facts[0], more))))
    return [title or "all runs" for title in titles]


def _shortest(facts: Sequence[Mapping[str, str]]) -> List[str]:
    """Return the first facts that differ, at most `_MOST_FACTS`, or so many as tell all apart."""
    names = differing(facts)
    for count in range(min(_MOST_FACTS, len(names)), len(names)):
        if len({tuple(each.get(name) for name in names[:count]) for each in facts}) == len(facts):
            return names[:count]
    return names


def _title(facts: Mapping[str, str], first: Mapping[str, str], names: Sequence[str]) -> str:
    parts = []
    for name in names:
        value = facts.get(name, "") or "none"
        if name == "bands":
            parts.append(_more_bands(value, first.get(name, "")))
        elif name == "network":
            parts.append(value)
        else:
            parts.append(f"{name} {value}")
    return "; ".join(parts)


def _more_bands(bands: str, first: str) -> str:
    """Return bands, or what they have more and less than those of the first group: ``with NDVI``, ``without B4``."""
    ours, theirs = bands.split(_BETWEEN_BANDS), first.split(_BETWEEN_BANDS)
    more, less = [b for b in ours if b not in theirs], [b for b in theirs if b not in ours]
    if not more and not less:
        return ", ".join(ours) if len(ours) <= _MOST_NAMED else f"{len(ours)} bands"
    parts = [(word, which) for word, which in (("with", more), ("without", less)) if which]
    return ", ".join(f"{word} " + ", ".join(band.split(" = ")[0] for band in which) for word, which in parts)


# --- the same samples ------------------------------------------------------------------------------------------------


def check_same_samples(one: Run, other: Run) -> None:
    """Raise unless two runs were judged on as many samples of every class, in the same role.

    Raises:
        BadInput: they were not; says which differ.
    """
    remedy = "Train both on the same samples with the same split."
    roles = [str(run.card.metrics["accuracy_set"]) for run in (one, other)]
    if roles[0] != roles[1]:
        raise BadInput(
            f"'{one.name}' was judged on its {roles[0]} samples, '{other.name}' (seed {other.seed} too) on its "
            f"{roles[1]} samples.",
            remedy,
        )
    ours, theirs = one.support, other.support
    for value in sorted({*ours, *theirs}):
        if ours.get(value, 0) != theirs.get(value, 0):
            name = next(
                str(row["name"])
                for run in (one, other)
                for row in run.card.metrics["classes"]
                if int(row["value"]) == value
            )
            raise BadInput(
                f"'{one.name}' and '{other.name}' (seed {one.seed}) were judged on different {roles[0]} samples: "
                f"{ours.get(value, 0)} and {theirs.get(value, 0)} of class {value} '{name}'.",
                remedy,
            )
