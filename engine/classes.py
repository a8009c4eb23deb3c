"""From a layer's class field to class ids and names: whole numbers, numbers stored as decimals, and text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt
import pandas

from ..tasks.classtable import ClassEntry, Legend, class_ids_of_names, resolve
from ..tasks.context import Context
from ..tasks.errors import BadInput
from .crosswalks import Crosswalk
from .vectors import Layer
from .wording import first_of

# Fields that name the classes of a numeric class field, in the order in which they are tried.
NAME_FIELDS = ("class_name", "name", "label", "classname")
_NUMBER = r"[+-]?\d{1,18}"
# Classes that a message lists.
_LISTED = 5


@dataclass(frozen=True)
class FeatureClasses:
    """The classes of a layer's features.

    Attributes:
        ids: class id of every feature, int64 ``(N,)``; 0 where unknown.
        known: False where the feature has no class (NULL) or one that CLASSES leaves out, bool ``(N,)``.
        others: True where the feature has a class, but one that CLASSES leaves out, bool ``(N,)``.
        classes: the table of the classes that remain, ascending.
        recoded: True where a crosswalk made the ids, so that several texts of the field may be one class.
    """

    ids: npt.NDArray[np.int64]
    known: npt.NDArray[np.bool_]
    others: npt.NDArray[np.bool_]
    classes: Tuple[ClassEntry, ...]
    recoded: bool = False

    def name_of(self) -> Dict[int, str]:
        """Return class id -> name."""
        return {entry.value: entry.name for entry in self.classes}


def feature_classes(
    layer: Layer,
    field: str,
    context: Context,
    legend: Legend = Legend(),
    keep: Sequence[int] = (),
    crosswalk: Optional[Crosswalk] = None,
) -> FeatureClasses:
    """Read the class of every feature.

    Text gets ids by `class_ids_of_names`, except where every text is a whole number. NULL is counted in a warning.

    Args:
        layer: the features.
        field: name of the class field.
        context: takes the warnings.
        legend: names and colours of the classes.
        keep: the class ids to keep (CLASSES), those that the crosswalk leads to; empty = all.
        crosswalk: the classes that those of the field become (CROSSWALK).

    Raises:
        BadInput: there is no such field, it is all NULL, holds what is no class, or CLASSES leaves nothing.
    """
    if field not in layer.fields:
        raise BadInput(
            f"'{layer.name}' has no field '{field}'.", f"Its fields are: {', '.join(layer.fields) or 'none'}."
        )
    column = layer.frame[field]
    if pandas.api.types.is_string_dtype(column) or column.dtype == object:
        column = column.where(column.astype(str).str.strip() != "", None)
    known = column.notna().to_numpy(dtype=bool)
    if not known.any():
        raise BadInput(
            f"The field '{field}' of '{layer.name}' is empty (NULL) in every feature.",
            "Choose the field that holds the class.",
        )
    if not known.all():
        context.warn(f"{np.count_nonzero(~known)} features of '{layer.name}' have no class (NULL); they are left out.")
    ids = np.zeros(len(column), dtype=np.int64)
    present = column[known]
    numbers = _whole_numbers(present, field, layer.name)
    if crosswalk is not None:
        by_text, mapped = _recoded(present, numbers, crosswalk, legend, layer.name, context)
        ids[known] = [0 if value is None else value for value in mapped]
        kept = known.copy()
        kept[known] = [value is not None for value in mapped]
        known = kept
        names = _names_beside(layer, field, ids, known) if numbers is not None else _own_names(by_text)
        if numbers is None:
            _warn_of_numbers(
                {t: v for t, v in by_text.items() if t not in crosswalk.targets}, field, layer.name, context
            )
    elif numbers is None:
        texts = present.astype(str).str.strip()
        by_name = class_ids_of_names(texts, legend)
        ids[known] = texts.map(by_name).to_numpy(dtype=np.int64)
        names = {value: name for name, value in by_name.items()}
        # Another layer with other names would count differently: the ids are the user's to check, or a legend's to fix.
        context.log("Class ids by name: " + ", ".join(f"{value} {name}" for value, name in sorted(names.items())) + ".")
        _warn_of_numbers(by_name, field, layer.name, context)
    else:
        ids[known] = numbers
        names = _names_beside(layer, field, ids, known)
    others = np.zeros_like(known)
    if keep:
        kept = known & _kept(ids[known], known, keep, layer.name, context)
        known, others = kept, known & ~kept
    table = (crosswalk.table if crosswalk else resolve)(np.unique(ids[known]), legend, names)
    return FeatureClasses(ids, known, others, table, crosswalk is not None)


def _recoded(
    present: Any,
    numbers: Optional[npt.NDArray[np.int64]],
    crosswalk: Crosswalk,
    legend: Legend,
    name: str,
    context: Context,
) -> Tuple[Dict[str, Optional[int]], List[Optional[int]]]:
    """Return text -> class id, None where it is ignored, and the class id of every value of the column."""
    texts = present.astype(str).str.strip() if numbers is None else pandas.Series(numbers).astype(str)
    crosswalk.check(set(texts), name, context)
    by_text = crosswalk.of_texts(texts, numbers is not None, legend)
    return by_text, [by_text[text] for text in texts]


def _warn_of_numbers(ids: Mapping[str, Optional[int]], field: str, name: str, context: Context) -> None:
    """Warn about texts that are numbers and, as some other text is none, got other ones as class ids."""
    wrong = [
        f"'{text}' is class {value}"
        for text, value in sorted(ids.items(), key=lambda item: item[1] or 0)
        if value is not None and re.fullmatch(_NUMBER, text) and int(text) != value
    ]
    if wrong:
        context.warn(
            f"The field '{field}' of '{name}' holds text that is no number, so that its numbers are names: "
            f"{first_of(wrong, _LISTED)}; give a field of whole numbers, or a LEGEND with their values."
        )


def _own_names(by_text: Dict[str, Optional[int]]) -> Dict[int, str]:
    """Return class id -> the text that leads to it, where one alone does."""
    ids = list(by_text.values())
    return {value: text for text, value in by_text.items() if value is not None and ids.count(value) == 1}


def class_texts(layer: Layer, field: str, classes: FeatureClasses) -> Dict[int, str]:
    """Return class id -> the text that its field shows, which is what the Orfeo ToolBox calls the class."""
    column = layer.frame[field][classes.known]
    if classes.recoded or pandas.api.types.is_numeric_dtype(column):
        return {entry.value: str(entry.value) for entry in classes.classes}
    texts = pandas.DataFrame({"id": classes.ids[classes.known], "text": column.astype(str).str.strip().to_numpy()})
    return {int(value): str(text) for value, text in texts.groupby("id")["text"].first().items()}


def _whole_numbers(column: Any, field: str, name: str) -> Optional[npt.NDArray[np.int64]]:
    """Return the column as whole numbers, or None for a column of names."""
    if pandas.api.types.is_bool_dtype(column) or pandas.api.types.is_integer_dtype(column):
        return np.asarray(column, dtype=np.int64)
    if pandas.api.types.is_float_dtype(column):
        values = np.asarray(column, dtype=np.float64)
        wrong = values[values != np.floor(values)]
        if len(wrong):
            raise BadInput(
                f"The field '{field}' of '{name}' holds {wrong[0]:g}, which is no class.",
                "Choose a field of whole numbers or of text.",
            )
        return values.astype(np.int64)
    texts = column.astype(str).str.strip()
    if texts.str.fullmatch(_NUMBER).all():
        return np.asarray(texts.astype(np.int64), dtype=np.int64)
    return None


def _names_beside(layer: Layer, field: str, ids: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> Dict[int, str]:
    """Return class names from a field beside the class field: one name per class, no name for two classes.

    A field `name` may well name the single polygons ("Lake Biwa"), so that every candidate must pass this test.
    """
    others = [name for name in layer.fields if name != field]
    ordered = [name for wanted in NAME_FIELDS for name in others if name.lower() == wanted]
    ordered += [name for name in others if name not in ordered and ("name" in name.lower() or "label" in name.lower())]
    for name in ordered:
        texts = layer.frame[name][known]
        pairs = pandas.DataFrame({"id": ids[known], "text": texts.to_numpy()}).dropna().drop_duplicates()
        is_text = pandas.api.types.is_string_dtype(texts) or texts.dtype == object
        if is_text and len(pairs) and pairs["id"].is_unique and pairs["text"].is_unique:
            return {int(value): str(text) for value, text in zip(pairs["id"], pairs["text"])}
    return {}


def _kept(
    ids: npt.NDArray[np.int64], known: npt.NDArray[np.bool_], keep: Sequence[int], name: str, context: Context
) -> npt.NDArray[np.bool_]:
    present = {int(value) for value in np.unique(ids)}
    check_keep_list(present, keep, name, context)
    kept = np.zeros(len(known), dtype=bool)
    kept[known] = np.isin(ids, list(keep))
    return kept


def check_keep_list(present: set[int], keep: Sequence[int], name: str, context: Context) -> None:
    """Warn about classes of CLASSES that do not occur.

    Raises:
        BadInput: none of them occurs; lists those that do.
    """
    missing = sorted(set(keep) - present)
    if not missing:
        return
    text = ", ".join(str(value) for value in missing)
    if len(missing) == len(set(keep)):
        raise BadInput(
            f"No class of CLASSES ({text}) occurs in '{name}'.",
            f"Its classes are: {', '.join(str(value) for value in sorted(present)[:30])}.",
        )
    context.warn(f"CLASSES lists {text}, which do not occur in '{name}'.")
