"""What sets two jobs apart, in words: for those who see a map or a training begun again that was half finished.

Keys are those of `journal.job_key` and `checkpoints.training_key`, as they come out of JSON.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator, List, Mapping, Optional, Tuple

# Parameters that are not called as their fields are; of an input, the file itself.
_PARAMETERS = {
    "source.path": "INPUT", "source.stack": "STACK", "source.bands": "BANDS", "mask.path": "MASK",
    "mask_layer.path": "MASK", "mask_layer": "MASK", "continue_anyway": "CONTINUE", "labels.path": "LABELS",
    "label_features.path": "LABEL_FEATURES", "areas.path": "AREAS", "legend.path": "LEGEND",
    "legend.layer_classes": "the labels' legend",
}  # fmt: skip
_LONGEST_VALUE = 40
_MISSING = object()


def changes(before: Any, now: Mapping[str, Any]) -> Tuple[str, ...]:
    """Return what differs between the key of a journal that was found and this job's: "THRESHOLD was 0.6, is 0.5"."""
    if not isinstance(before, Mapping):
        return ()
    found = [
        *_of_values("the engine's version", before.get("engine"), now.get("engine")),
        *_of_models(before.get("model"), now.get("model")),
        *_of_inputs(before.get("inputs"), now.get("inputs")),
        *_of_fields(before.get("job"), now.get("job")),
        *_of_products(before.get("products"), now.get("products")),
        *_of_values("the runtime", before.get("runtime"), now.get("runtime")),
        *_of_values("PRECISION", before.get("precision"), now.get("precision")),
    ]
    # Where anything else is another, the windows are others because of it.
    if not found and before.get("windows") != now.get("windows"):
        found.append("the image is cut into other windows")
    return tuple(dict.fromkeys(found))


def training_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Tuple[str, ...]:
    """Return what differs between the keys of two trainings: "EPOCHS was 20, is 21"."""
    found = [*lasting_changes(before, now), *_of_fields(before.get("job"), now.get("job"))]
    # Of the data, what differs follows from all else where there is any.
    return tuple(dict.fromkeys(found)) or ("the training data are others",)


def lasting_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Tuple[str, ...]:
    """Return those after which the job of the one key cannot be run again: of versions, and in the inputs' files."""
    versions = before.get("versions"), now.get("versions")
    return (*_of_fields(*versions, spoken=str), *_of_inputs(before.get("files"), now.get("files")))


def _of_values(name: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    texts = _text(before), _text(now)
    if texts[0] is None or texts[1] is None or texts[0] == texts[1]:
        yield f"{name} is another"
    else:
        yield f"{name} was {texts[0]}, is {texts[1]}"


def _of_models(before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    both = isinstance(before, list) and isinstance(now, list)
    # Of models, the key holds what is in them, not how they are called.
    yield "MODELS are others" if both and before[:1] == now[:1] else "MODEL is another or has changed"


def _of_inputs(before: Any, now: Any) -> Iterator[str]:
    """Tell of files that are the same by name; another file is told of as another value of its parameter."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for path, state in now.items():
            if path in before and before[path] != state:
                yield f"'{os.path.basename(path)}' has changed"


def _of_fields(before: Any, now: Any, above: str = "", spoken: Callable[[str], str] = str.upper) -> Iterator[str]:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return
    for field in [*now, *(field for field in before if field not in now)]:
        if above + field == "more_models":
            continue
        old, new = before.get(field, _MISSING), now.get(field, _MISSING)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and field != "extent":
            yield from _of_fields(old, new, above + field + ".")
        else:
            name = _PARAMETERS.get(above + field, spoken(field))
            yield from _of_values(name, old, new)


def _of_products(before: Any, now: Any) -> Iterator[str]:
    """Tell of outputs, whose facts are kind and type: "confidence float32"."""
    if before == now or not isinstance(before, list) or not isinstance(now, list):
        return
    kinds = [[str(fact).split(" ", 1)[0] for fact in facts] for facts in (before, now)]
    if kinds[0] != kinds[1]:
        yield f"the outputs were {' and '.join(kinds[0])}, are {' and '.join(kinds[1])}"
    else:
        types = [str(facts[-1]).rpartition(" ")[2] for facts in (before, now)]
        yield f"PROBABILITY_TYPE was {types[0]}, is {types[1]}"


def _text(value: Any) -> Optional[str]:
    """Return a value as it is given to a parameter; None where that is too long to be told."""
    if value is None or value is _MISSING or value == "" or value == []:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and os.path.isabs(value):
        value = f"'{os.path.basename(value)}'"
    if isinstance(value, list):
        parts: List[Optional[str]] = [_text(part) for part in value]
        value = ":".join(part for part in parts if part is not None) if None not in parts else value
    text = str(value)
    return None if isinstance(value, (Mapping, list)) or len(text) > _LONGEST_VALUE else text
