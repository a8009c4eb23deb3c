"""What a model file says of itself; read without the engine."""

from __future__ import annotations

import html
import json
from pathlib import Path

from ...models.cards import Card, read_card
from ...tasks.errors import BadInput
from ...tasks.serial import to_plain
from .. import parameters as p
from ..base import DeepscapeAlgorithm
from ..translate import tr
from ..values import Values


class ModelInfo(DeepscapeAlgorithm):
    """modelinfo."""

    MODEL = "MODEL"
    OUTPUT = "OUTPUT"
    JSON = "JSON"
    NETWORK = "NETWORK"
    CLASSES = "CLASSES"

    STEP = "tools"
    SUMMARY = "Shows what a model is: its network, bands, classes, training data and accuracy."

    def name(self):
        return "modelinfo"

    def displayName(self):
        return tr("Show a model's card")

    def initAlgorithm(self, configuration=None):
        self.add_parameters(
            p.model(self.MODEL, tr("Model"), tr("Model file made by one of the training algorithms.")),
            p.file_output(
                self.OUTPUT, tr("Page"), tr("The card as a page, to read or print."), "HTML (*.html)", optional=True
            ),
        )
        self.add_string(self.JSON, tr("Card"), tr("The whole card as JSON."))
        self.add_string(self.NETWORK, tr("Network"), tr("Name of the network, or random_forest."))
        self.add_string(self.CLASSES, tr("Classes"), tr("JSON: value, name and colour of each class."))

    def work(self, parameters, context, feedback):
        values = Values(self, parameters, context, feedback, self._snapshots)
        try:
            path = values.path(self.MODEL)
            card = read_card(path)
            for label, text in facts(card):
                feedback.pushInfo(f"{label}: {text}")
            outputs = {
                self.JSON: card.to_json(),
                self.NETWORK: card.network,
                self.CLASSES: json.dumps(to_plain(card.classes), ensure_ascii=False),
            }
            page = values.output(self.OUTPUT)
            if page:
                write_text(page, card_page(Path(path).name, card))
                outputs[self.OUTPUT] = page
            return outputs
        finally:
            values.close()


def write_text(path: str, text: str) -> None:
    """Write a page.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written: {error.strerror}.", "Choose another file.") from error


def facts(card: Card) -> list[tuple[str, str]]:
    """Return the card's facts as (label, text)."""
    found = [
        (tr("Network"), card.network),
        (tr("Parameters"), f"{card.parameter_count:,}"),
        (tr("Created"), card.created),
    ]
    for source in card.sources:
        bands = ", ".join(band.name or f"band {number}" for number, band in enumerate(source.bands, start=1))
        found.append((tr("Bands"), f"{len(source.bands)} ({bands}), {source.dtype}"))
        found.append((tr("Patch size"), f"{source.patch_size} x {source.patch_size}"))
    found.append((tr("Classes"), ", ".join(f"{entry.value} {entry.name}" for entry in card.classes)))
    if card.res_m is not None:
        found.append((tr("Pixel size"), f"{card.res_m:.2f} m"))
    for key, label in _METRICS.items():
        value = card.metrics.get(key)
        if isinstance(value, (int, float, str)):
            found.append((tr(label), f"{value:.4f}" if isinstance(value, float) else str(value)))
    return found


# Key of the card's metrics -> label; the others (matrix, per class) are in the JSON.
_METRICS = {
    "overall_accuracy": "Overall accuracy",
    "kappa": "Kappa",
    "macro_f1": "Macro F1",
    "mean_iou": "Mean IoU",
    "samples": "Samples",
    "sentence": "Accuracy of",
    "best_epoch": "Best epoch",
}


def card_page(name: str, card: Card) -> str:
    """Return the card as a page."""
    rows = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in facts(card))
    legend = "".join(
        f"<tr><td>{entry.value}</td><td style='background:{entry.colour};width:3em'></td>"
        f"<td>{html.escape(entry.name)}</td></tr>"
        for entry in card.classes
    )
    whole = html.escape(json.dumps(json.loads(card.to_json()), ensure_ascii=False, indent=1))
    return (
        f"<!DOCTYPE html>\n<html><head><meta charset='utf-8'><title>{html.escape(name)}</title>"
        "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto}th{text-align:left;padding-right:1em}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}</style></head>"
        f"<body><h1>{html.escape(name)}</h1><table>{rows}</table><h2>{html.escape(tr('Classes'))}</h2>"
        f"<table>{legend}</table><details><summary>JSON</summary><pre>{whole}</pre></details></body></html>\n"
    )
