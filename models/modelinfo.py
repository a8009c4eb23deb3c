"""What a model file says of itself, for people: its facts and a page, from the card alone. Standard library only."""

from __future__ import annotations

import html
import json
import math
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ..tasks.errors import BadInput
from ..tasks.serial import to_plain
from .cards import Card, CardBand
from .registry import network_entry

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; max-width: 60em; margin: 2em auto;
  padding: 0 1em }
h1 { margin-bottom: 0 } h1 + p { margin-top: 0; opacity: .75 } h2 { font-size: 18px; margin: 1.6em 0 .4em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid #8884; vertical-align: top }
th:first-child, td:first-child, table.facts td { text-align: left; overflow-wrap: anywhere }
.swatch { display: inline-block; width: 14px; height: 14px; margin-right: 7px; border: 1px solid #0008 }
pre { background: #8882; padding: 1em; overflow: auto }
"""


def network_title(card: Card) -> str:
    """Return what lists call the model's network: its title in the registry, else its id."""
    if card.kind == "forest":
        features = {"window": "centre pixel, mean and deviation of the patch"}.get(
            str(card.arguments.get("features")), "pixel values"
        )
        return f"Random Forest ({features})"
    try:
        return network_entry(card.network).title
    except BadInput:
        return card.network  # a network of another version of the plugin


def class_table(card: Card) -> str:
    """Return value, name and colour of each class as JSON text."""
    return json.dumps(to_plain(card.classes), ensure_ascii=False)


def card_facts(card: Card) -> List[Tuple[str, str]]:
    """Return the card's facts as (label, text), the most asked for first."""
    facts = [("Network", network_title(card))]
    if card.parameter_count:
        facts.append(("Trainable parameters", f"{card.parameter_count:,}"))
    for number, source in enumerate(card.sources, start=1):
        of = f" of source {number}" if len(card.sources) > 1 else ""
        own, computed = source.scene_bands, source.computed_bands
        bands = ", ".join(band.name or f"band {place}" for place, band in enumerate(own, start=1))
        facts.append((f"Bands{of}", f"{len(own)}: {bands} ({source.dtype})"))
        if computed:
            facts.append((f"Computed bands{of}", "; ".join(band.formula for band in computed)))
        facts.append((f"Patch size{of}", f"{source.patch_size} x {source.patch_size} pixels"))
    facts.append(("Classes", ", ".join(f"{entry.value} {entry.name}" for entry in card.classes)))
    if card.res_m is not None:
        facts.append(("Pixel size of the training scene", f"{card.res_m:.4g} m"))
    metrics = card.metrics
    if metrics.get("sentence"):
        facts.append(("Accuracy", str(metrics["sentence"])))
    for key, label in (
        ("overall_accuracy", "Overall accuracy"), ("kappa", "Kappa"), ("macro_f1", "Mean F1"), ("mean_iou", "Mean IoU"),
    ):  # fmt: skip
        if _number(metrics.get(key)) is not None:
            facts.append((label, _text(metrics[key])))
    facts.extend((label, value) for label, value in _training_facts(card) if value)
    return facts


def _training_facts(card: Card) -> List[Tuple[str, str]]:
    datasets = card.training.get("datasets")
    parts = []
    if isinstance(datasets, Mapping):
        for role, part in datasets.items():
            if isinstance(part, Mapping):
                unit = "patches" if "patches" in part else "windows"
                parts.append(f"{role}: {part.get('name', '?')}, {part.get(unit, '?')} {unit}")
    return [
        ("Trained on", "; ".join(parts)),
        ("Training area", _field_text(card.training.get("field"))),
        ("Created", card.created),
        ("Made with", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
    ]


def _field_text(field: Any) -> str:
    """Return where the model has learned, in words; empty where the card does not know it."""
    if not isinstance(field, Mapping):
        return ""
    texts = [
        f"{part.get('scene')} ({part.get('boxes')} boxes of pixels"
        + (f", within {part.get('cell')} pixels)" if part.get("cell", 1) > 1 else ")")
        for part in field.get("parts", ())
    ]
    texts += [f"not known of {name}" for name in field.get("unknown", ())]
    return "; ".join(texts)


def card_text(card: Card, indent: Optional[int] = None) -> str:
    """Return the card as JSON without the packed boxes of its training area, which say nothing to people."""
    plain = json.loads(card.to_json())
    field = plain["training"].get("field")
    for part in field.get("parts", ()) if isinstance(field, dict) else ():
        part.pop("data", None)
    return json.dumps(plain, ensure_ascii=False, indent=indent)


def model_page(name: str, card: Card) -> str:
    """Return the card as an HTML page; every text of the card is escaped.

    Args:
        name: of the model file.
        card: its card.
    """
    facts = "".join(f"<tr><th>{_escaped(label)}</th><td>{_escaped(text)}</td></tr>" for label, text in card_facts(card))
    whole = card_text(card, indent=1)
    settings = [[key, _text(value)] for key, value in {**card.arguments, **card.settings}.items()]
    sections = [
        ("Classes", _classes(card)),
        *(
            (f"Bands of source {number}" if len(card.sources) > 1 else "Bands", _bands(card, number - 1))
            for number in range(1, len(card.sources) + 1)
        ),
        ("Settings", _table(["Setting", "Value"], settings) if settings else ""),
    ]
    body = "".join(f"<h2>{_escaped(title)}</h2>\n{content}\n" for title, content in sections if content)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_escaped(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_escaped(name)}</h1>\n<p>{_escaped(network_title(card))}</p>\n"
        f'<table class="facts">{facts}</table>\n{body}'
        f"<details><summary>The whole card (JSON)</summary><pre>{_escaped(whole)}</pre></details>\n</body>\n</html>\n"
    )


def _classes(card: Card) -> str:
    listed = card.metrics.get("classes")
    found = {row.get("value"): row for row in (listed if isinstance(listed, list) else []) if isinstance(row, Mapping)}
    scores = ("precision", "recall", "f1", "iou", "support")
    head = ["Class", "Value", *(("Precision", "Recall", "F1", "IoU", "Samples") if found else ())]
    rows = []
    for entry in card.classes:
        # The colour has been checked to be #rrggbb.
        name = f'<span class="swatch" style="background:{entry.colour}"></span>{_escaped(entry.name)}'
        cells = [_text(found.get(entry.value, {}).get(score)) for score in scores] if found else []
        rows.append([name, str(entry.value), *cells])
    return _table(head, rows, raw=1)


def _bands(card: Card, source: int) -> str:
    head = ["Band", "Mean", "Deviation", "Scene mean", "Scene deviation", "Scale", "Offset", "No-data"]
    rows = [
        [
            band.formula if band.expression else band.name or f"band {number}",
            *(_text(value) for value in (band.mean, band.std, band.scene_mean, band.scene_std)),
            *(_scaling(band, value) for value in (band.scale, band.offset)),
            "none" if band.nodata is None else _text(band.nodata),
        ]
        for number, band in enumerate(card.sources[source].bands, start=1)
    ]
    return _table(head, rows)


def _scaling(band: CardBand, value: Optional[float]) -> str:
    if band.expression:
        return "none"
    return "the file's" if value is None else _text(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], raw: int = 0) -> str:
    """Return a table; the first ``raw`` cells of each row are HTML already."""
    top = "".join(f"<th>{_escaped(text)}</th>" for text in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{cell if place < raw else _escaped(cell)}</td>" for place, cell in enumerate(row))
        + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table>"


def _number(value: Any) -> Optional[float]:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    number = _number(value)
    if value is None or (number is not None and math.isnan(number)):
        return "n/a"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)
