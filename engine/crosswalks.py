"""CROSSWALK: a table that says which class of the data becomes which class of the map, and which are ignored.

A CSV file with the columns from, to, name and colour. ``from`` is a class value, or a text of the class field; several
may lead to one class. An empty ``to`` means that the class is ignored; a class that is not listed stays as it is.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Collection, Dict, Iterable, List, Mapping, Optional, Tuple

import numpy as np

from ..tasks.classtable import ClassEntry, Legend, class_ids_of_names, palette_colour, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .rasters import Array
from .wording import first_of

_REMEDY = "It is a table with the columns from, to, name and colour (#rrggbb); an empty 'to' ignores the class."


@dataclass(frozen=True)
class Crosswalk:
    """From the classes of the data to those that are wanted.

    Attributes:
        name: of the file, for messages.
        targets: text of a class -> class value, None where it is ignored.
        given: class value -> name and colour; either may be empty.
        map_legend: True where the layer's style names the classes that are wanted (a map's), False where it names
            those of the data.
    """

    name: str
    targets: Mapping[str, Optional[int]]
    given: Mapping[int, Tuple[str, str]]
    map_legend: bool = False

    def check(self, present: Collection[str], data: str, context: Context) -> None:
        """Warn about listed classes that do not occur in the data, and log those that stay as they are.

        Raises:
            BadInput: none occurs, or all that occur are ignored.
        """
        missing = [text for text in self.targets if text not in present]
        listed = first_of(missing, 10)
        if len(missing) == len(self.targets):
            raise BadInput(
                f"No class of CROSSWALK '{self.name}' ({listed}) occurs in '{data}'.",
                f"Its classes are: {', '.join(sorted(present)[:30])}.",
            )
        if missing:
            context.warn(f"CROSSWALK '{self.name}' lists {listed}, which do not occur in '{data}'.")
        if all(self.targets.get(text, 0) is None for text in present):
            raise BadInput(f"CROSSWALK '{self.name}' ignores every class of '{data}'.", "Fill in the column 'to'.")
        kept = sorted(set(present) - set(self.targets))
        if kept:
            context.log(f"Not in CROSSWALK '{self.name}', so kept as they are: {', '.join(kept[:30])}.")

    def of_counts(self, counts: Mapping[int, int]) -> Dict[int, int]:
        """Return the pixels of the classes that are wanted, from those of the classes of the data."""
        found: Dict[int, int] = {}
        for value, number in counts.items():
            target = self.targets.get(str(value), value)
            if target is not None:
                found[target] = found.get(target, 0) + number
        return found

    def of_labels(self, labels: Array, valid: Array) -> Tuple[Array, Array]:
        """Return labels (whole numbers where valid) as wanted classes, int64, and where these are valid."""
        if labels.dtype.kind == "f":
            labels = np.where(valid, labels, 0).astype(np.int64)
        if labels.dtype.itemsize > 2:
            mapped, kept = self._mapped(labels)
            return mapped, valid & kept
        limits = np.iinfo(labels.dtype)
        mapped, kept = self._mapped(np.arange(limits.min, limits.max + 1))
        index = labels.astype(np.int64) - limits.min
        return mapped[index], valid & kept[index]

    def _mapped(self, values: Array) -> Tuple[Array, Array]:
        listed = sorted((int(text), target) for text, target in self.targets.items() if _is_number(text))
        if not listed:
            return values.astype(np.int64), np.ones(values.shape, dtype=bool)
        sources = np.array([source for source, _ in listed], np.int64)
        targets = np.array([0 if target is None else target for _, target in listed], np.int64)
        ignored = np.array([target is None for _, target in listed])
        place = np.minimum(np.searchsorted(sources, values), len(sources) - 1)
        hit = sources[place] == values
        return np.where(hit, targets[place], values).astype(np.int64), ~(hit & ignored[place])

    def of_texts(self, texts: Iterable[str], numbers: bool, legend: Legend) -> Dict[str, Optional[int]]:
        """Return text of a class -> class value, None where it is ignored.

        Names that are not listed get ids by `class_ids_of_names`, over the values that the table does not use.
        """
        distinct = set(texts)
        found = {text: self.targets[text] for text in distinct if text in self.targets}
        others = sorted(distinct - set(found))
        if numbers:
            return {**found, **{text: int(text) for text in others}}
        taken = {target for target in self.targets.values() if target is not None}
        reserved = tuple(
            ClassEntry(value, self.given.get(value, ("", ""))[0] or f"Class {value}", palette_colour(0))
            for value in sorted(taken)
        )
        own = self._without_old(legend)
        return {**found, **class_ids_of_names(others, replace(own, layer_classes=own.layer_classes + reserved))}

    def table(
        self, values: Iterable[int], legend: Legend, names: Optional[Mapping[int, str]] = None
    ) -> Tuple[ClassEntry, ...]:
        """Return the class table of wanted classes: names and colours of the crosswalk first, then as `resolve`."""
        table = []
        for entry in resolve(values, self._without_old(legend), names):
            name, colour = self.given.get(entry.value, ("", ""))
            table.append(ClassEntry(entry.value, name or entry.name, colour or entry.colour))
        return tuple(table)

    def _without_old(self, legend: Legend) -> Legend:
        """Return the legend without those classes of the layer's style whose values now mean something else."""
        if self.map_legend:
            return legend
        changed = {int(text) for text, target in self.targets.items() if _is_number(text) and int(text) != target}
        changed |= {target for text, target in self.targets.items() if target is not None and text != str(target)}
        return replace(legend, layer_classes=tuple(e for e in legend.layer_classes if e.value not in changed))


def read_crosswalk(path: str, map_legend: bool = False) -> Optional[Crosswalk]:
    """Read a crosswalk; None for an empty path. Columns are separated by commas, semicolons or tabs.

    ``map_legend``: the layer's style names the wanted classes, see `Crosswalk`.

    Raises:
        BadInput: the file cannot be read, lacks a column, lists a class twice, gives a class two names or colours, or
            holds a ``to`` that is no whole number.
    """
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"The CROSSWALK '{path}' cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"The CROSSWALK '{path}' is not a text file in UTF-8.", _REMEDY) from error
    name = Path(path).name
    targets: Dict[str, Optional[int]] = {}
    given: Dict[int, Tuple[str, str]] = {}
    for row in _rows(text, name):
        source, target = _number_text(row["from"]), row["to"]
        if source in targets:
            raise BadInput(f"CROSSWALK '{name}' lists the class {source} twice.", "Keep one row per class.")
        if target and not _is_number(target):
            raise BadInput(f"CROSSWALK '{name}' turns {source} into '{target}', which is no whole number.", _REMEDY)
        targets[source] = int(target) if target else None
        if target:
            _give(given, int(target), row.get("name", ""), row.get("colour") or row.get("color", ""), name)
    if not targets:
        raise BadInput(f"CROSSWALK '{name}' lists no class.", _REMEDY)
    return Crosswalk(name, targets, given, map_legend)


def _rows(text: str, name: str) -> List[Dict[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[0] if lines else ""
    delimiter = max(",;\t", key=head.count)
    columns = [column.strip().lower() for column in head.split(delimiter)]
    missing = [column for column in ("from", "to") if column not in columns]
    if missing:
        raise BadInput(f"CROSSWALK '{name}' has no column '{missing[0]}'.", _REMEDY)
    rows = csv.DictReader(lines[1:], fieldnames=columns, delimiter=delimiter, skipinitialspace=True)
    return [{key: (row.get(key) or "").strip() for key in columns} for row in rows]


def _give(given: Dict[int, Tuple[str, str]], value: int, name: str, colour: str, file: str) -> None:
    """Note the name and colour of a class; rows without them leave what others gave."""
    if colour:
        colour = ClassEntry(value, name, colour).colour.lower()
    known = given.get(value, ("", ""))
    for what, old, new in zip(("name", "colour"), known, (name, colour)):
        if old and new and old != new:
            raise BadInput(
                f"CROSSWALK '{file}' gives class {value} the {what} '{old}' and '{new}'.", f"Keep one {what} per class."
            )
    given[value] = (known[0] or name, known[1] or colour)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,18}", text) is not None


def _number_text(text: str) -> str:
    """Return whole numbers as Python writes them ("03" and "+3" are 3), other texts as they are."""
    return str(int(text)) if _is_number(text) else text
