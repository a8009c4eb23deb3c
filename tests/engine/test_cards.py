"""The model card: to JSON and back, and files that carry none."""

import json
import math
import re
import struct

import pytest
from deepscape.models.cards import CARD_FORMAT, CARD_KEY, Card, CardBand, CardSource, card_from_json, read_card
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.errors import BadInput

CARD = Card(
    "network", "compact_cnn",
    (CardSource(7, (CardBand("B2", 0.1, 0.2, math.nan, math.nan, nodata=-9999.0),), "int16", "all"),),
    (ClassEntry(-1, "Unbekannt", "#000000"), ClassEntry(300, "forêt", "#00ff00")),
    arguments={"width": 32}, res_m=10.0, training={"counts": {"training": {"300": 5}}}, metrics={"kappa": None},
)  # fmt: skip


def write(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def test_a_card_survives_json():
    again = card_from_json(CARD.to_json())
    assert math.isnan(again.sources[0].bands[0].scene_mean)
    assert again.to_json() == CARD.to_json()
    assert again.classes == CARD.classes and again.sources[0].nodata_rule == "all" and again.metrics == {"kappa": None}


def test_a_card_of_an_older_version_is_one_of_a_patch_network():
    plain = json.loads(CARD.to_json())
    for name in ("output", "margin", "stride", "tile", "overlap"):
        del plain[name]
    card = card_from_json(json.dumps(plain))
    assert (card.output, card.margin, card.stride, card.tile, card.overlap) == ("patch", None, 1, None, None)


def test_a_card_is_read_from_the_header(tmp_path):
    path = write(tmp_path / "m.safetensors", {"__metadata__": {CARD_KEY: CARD.to_json()}})
    assert read_card(path).network == "compact_cnn"


def test_a_newer_card_asks_for_an_update(tmp_path):
    plain = json.loads(CARD.to_json()) | {"format": CARD_FORMAT + 1}
    path = write(tmp_path / "m.safetensors", {"__metadata__": {CARD_KEY: json.dumps(plain)}})
    with pytest.raises(BadInput, match="newer Deepscape") as caught:
        read_card(path)
    assert caught.value.remedy == "Update the plugin."


def test_classes_of_one_value_are_refused(tmp_path):
    """The weights are guarded by a checksum, the card may have been edited."""
    plain = json.loads(CARD.to_json())
    plain["classes"][0]["value"] = 300
    path = write(tmp_path / "m.safetensors", {"__metadata__": {CARD_KEY: json.dumps(plain)}})
    with pytest.raises(BadInput, match=r"m\.safetensors' cannot be used: two of its classes have the value 300\."):
        read_card(path)


def test_other_peoples_safetensors_are_refused(tmp_path):
    path = write(tmp_path / "m.safetensors", {"__metadata__": {"format": "pt"}})
    with pytest.raises(BadInput, match="carries no Deepscape model card"):
        read_card(path)


@pytest.mark.parametrize("text", ["{", '{"kind": "network"}', "[]", '{"format": "x"}'])
def test_a_damaged_card_is_named(tmp_path, text):
    path = write(tmp_path / "m.safetensors", {"__metadata__": {CARD_KEY: text}})
    with pytest.raises(BadInput, match=re.escape(path)) as caught:
        read_card(path)
    assert caught.value.remedy and "__init__" not in str(caught.value)
