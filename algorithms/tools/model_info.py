"""What a model file says of itself; read without the engine."""

from __future__ import annotations

from pathlib import Path

from ...models.cards import read_card
from ...models.modelinfo import card_facts, card_text, class_table, model_page
from ...tasks import jobfiles
from ...tasks.errors import BadInput
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
            for label, text in card_facts(card):
                feedback.pushInfo(f"{label}: {text}")
            outputs = {
                self.JSON: card_text(card),
                self.NETWORK: card.network,
                self.CLASSES: class_table(card),
            }
            page = values.output(self.OUTPUT)
            if page:
                write_text(page, model_page(Path(path).name, card))
                outputs[self.OUTPUT] = page
            return outputs
        finally:
            values.close()


def write_text(path: str, text: str) -> None:
    """Write a page under a temporary name.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        jobfiles.replace_text(path, text)
    except OSError as error:
        raise BadInput(f"'{path}' cannot be written: {error.strerror}.", "Choose another file.") from error
