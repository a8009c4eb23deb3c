"""A model's facts and page, from its card alone."""

import html
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.models.modelinfo import card_facts, card_text, class_table, model_page, network_title
from deepscape.tasks.classtable import ClassEntry

NAN = float("nan")
CARD = Card(
    "network",
    "compact_cnn",
    (CardSource(7, (CardBand("B2", 0.1, 0.02, 0.11, 0.03, nodata=-9999.0), CardBand("", 3, 1, NAN, NAN, 0.5, 2.0))),),
    (ClassEntry(1, "Water & ice", "#7fbcfc"), ClassEntry(300, "<b>Farm</b>", "#a15c44")),
    arguments={"width": 32},
    res_m=9.9649,
    training={"datasets": {"training": {"name": "patches", "hash": "sha256:00", "patches": 1410}}},
    settings={"epochs": 30, "learning_rate": 0.003},
    metrics={
        "sentence": "On 12 test polygons.", "overall_accuracy": 0.98765, "kappa": None, "macro_f1": 0.9,
        "classes": [{"value": 1, "precision": 0.91, "recall": 1.0, "f1": 0.95, "iou": 0.9, "support": 77}],
    },
    parameter_count=33796,
    versions={"torch": "2.13.0"},
    created="2026-11-21T00:54:48+00:00",
)  # fmt: skip


def test_facts():
    facts = dict(card_facts(CARD))
    assert facts["Network"] == "Compact CNN"
    assert facts["Trainable parameters"] == "33,796"
    assert facts["Bands"] == "2: B2, band 2 (float32)" and facts["Patch size"] == "7 x 7 pixels"
    assert facts["Classes"] == "1 Water & ice, 300 <b>Farm</b>"
    assert facts["Accuracy"] == "On 12 test polygons." and facts["Overall accuracy"] == "0.98765"
    assert "Kappa" not in facts
    assert facts["Trained on"] == "training: patches, 1410 patches" and facts["Made with"] == "torch 2.13.0"
    assert facts["Pixel size of the training scene"] == "9.965 m"


def test_the_training_field_is_told_without_its_boxes():
    field = {
        "parts": [
            {"scene": "a.tif", "boxes": 12, "cell": 1, "data": "AAAA"},
            {"scene": "b.tif", "boxes": 9, "cell": 4, "data": "BBBB"},
        ],
        "unknown": ["old"],
    }
    windows = {"training": {"name": "a.tif (random windows of an epoch)", "windows": 64, "raster": [9, 9]}}
    card = replace(CARD, training={"datasets": windows, "field": field})
    facts = dict(card_facts(card))
    assert facts["Training area"] == (
        "a.tif (12 boxes of pixels); b.tif (9 boxes of pixels, within 4 pixels); not known of old"
    )
    assert facts["Trained on"] == "training: a.tif (random windows of an epoch), 64 windows"
    shown = json.loads(card_text(card))
    assert shown["training"]["field"]["parts"][1] == {"scene": "b.tif", "boxes": 9, "cell": 4}
    assert "AAAA" in card.to_json() and "AAAA" not in model_page("m", card)
    assert json.loads(card_text(CARD)) == json.loads(CARD.to_json()) and "Training area" not in dict(card_facts(CARD))


def test_computed_bands_show_how_they_are_computed():
    bands = (
        CardBand("B4", 1, 1, 1, 1),
        CardBand("B8", 1, 1, 1, 1),
        CardBand("NDVI", 0.5, 0.1, NAN, NAN, expression="(B8 - B4) / (B8 + B4)"),
        CardBand("B4 < B8", 0.5, 0.1, NAN, NAN, expression="B4 < B8"),
    )
    card = replace(CARD, sources=(CardSource(7, bands),))
    facts = dict(card_facts(card))
    assert facts["Bands"] == "2: B4, B8 (float32)"
    assert facts["Computed bands"] == "NDVI = (B8 - B4) / (B8 + B4); B4 < B8"
    page = model_page("m", card)
    assert "<td>NDVI = (B8 - B4) / (B8 + B4)</td>" in page and "<td>B4 &lt; B8</td>" in page
    assert "Computed bands" not in dict(card_facts(CARD))


def test_titles():
    assert network_title(replace(CARD, network="of_a_later_version")) == "of_a_later_version"
    forest = replace(CARD, kind="forest", network="random_forest", arguments={"features": "window"})
    assert network_title(forest) == "Random Forest (centre pixel, mean and deviation of the patch)"
    assert network_title(replace(forest, arguments={})) == "Random Forest (pixel values)"


def test_the_class_table_is_json():
    assert json.loads(class_table(CARD)) == [
        {"value": 1, "name": "Water & ice", "colour": "#7fbcfc"},
        {"value": 300, "name": "<b>Farm</b>", "colour": "#a15c44"},
    ]


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("card", [CARD, Card("forest", "random_forest", (), ()), replace(CARD, metrics={})])
def test_the_page_is_well_formed_and_escaped(card):
    page = model_page("modèle <x>.safetensors", card)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    text = " ".join(parser.text)
    assert "modèle <x>.safetensors" in text and "<b>" not in page and "<x>" not in page
    if card.classes:
        assert "#7fbcfc" in page and "<b>Farm</b>" in text and "the file's" in text and "-9999" in text
    whole = page[page.index("<pre>") + 5 : page.index("</pre>")]
    assert json.loads(html.unescape(whole))["kind"] == card.kind


def test_it_needs_the_standard_library_only():
    path = [p for p in sys.path if (Path(p) / "deepscape").exists()]
    code = (
        "import sys; import deepscape.models.modelinfo;"
        "print([n for n in ('numpy', 'torch', 'rasterio', 'qgis', 'jinja2') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(path)}
    )
    assert found.stdout.strip() == "[]"
