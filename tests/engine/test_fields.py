"""What is kept of a network's field of view, and when it is not believed."""

import json

import pytest
import torch
from deepscape.engine import fields
from deepscape.engine.probing import Field, probe
from deepscape.models.build import build_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSCAPE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def probed(monkeypatch):
    """Count the networks that are probed."""
    calls = []

    def counted(module, bands, check=None):
        calls.append(module)
        return probe(module, bands, check)

    monkeypatch.setattr(fields, "probe", counted)
    return calls


def card(depth=1, bands=1, classes=2, binary=False):
    table = tuple(ClassEntry(value, f"class {value}", "#ff0000") for value in range(classes))
    source = CardSource(64, tuple(CardBand("b", 0.0, 1.0, 0.0, 1.0) for _ in range(bands)))
    return Card(
        "network", "unet", (source,), table, arguments={"width": 2, "depth": depth}, output="pixels", binary=binary
    )


def test_an_architecture_is_probed_once(probed):
    first = fields.field_of(card())
    assert fields.field_of(card()) == first == probe(build_network("unet", 1, 2, 0, {"width": 2, "depth": 1}), 1)
    assert len(probed) == 1


@pytest.mark.parametrize("other", [{"depth": 2}, {"bands": 2}, {"classes": 3}, {"binary": True}])
def test_another_architecture_is_probed_anew(probed, other):
    fields.field_of(card())
    fields.field_of(card(**other))
    assert len(probed) == 2


@pytest.mark.parametrize("what", ["_code", "_version"])
def test_other_code_is_probed_anew(probed, monkeypatch, what):
    fields.field_of(card())
    monkeypatch.setattr(fields, what, lambda *_: "other")
    fields.field_of(card())
    assert len(probed) == 2


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", '{"margin": 3}', '{"margin": 3, "stride": 0, "context": "local"}',
        '{"margin": 3, "stride": 2, "context": "local"}', '{"margin": 4, "stride": 2, "context": "far"}',
    ],
)  # fmt: skip
def test_a_damaged_answer_is_not_believed(probed, home, content):
    found = fields.field_of(card())
    (file,) = (home / "cache" / "fields").iterdir()
    file.write_text(content)
    assert fields.field_of(card()) == found
    assert json.loads(file.read_text()) == {"margin": found.margin, "stride": found.stride, "context": found.context}
    assert len(probed) == 2


def test_the_generator_of_a_training_is_left_alone():
    before = torch.random.get_rng_state()
    fields.field_of(card())
    assert torch.equal(before, torch.random.get_rng_state())


def test_without_a_folder_it_is_probed(probed, home):
    (home / "cache").mkdir()
    (home / "cache" / "fields").write_text("a file")
    assert fields.field_of(card()) == fields.field_of(card())
    assert len(probed) == 2


def test_a_network_s_own_grid_is_kept_to():
    class AnySize(torch.nn.Conv2d):
        grid = 8

    assert probe(AnySize(1, 1, 3, padding=1), 1) == Field(8, 8, "local")
