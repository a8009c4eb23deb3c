"""What a mapping job gives of a pixel."""

import math

import numpy as np
import pytest
from deepscape.engine.products import (
    confidence,
    entropy,
    margin,
    positions_type,
    products_of,
    stored_positions,
)
from deepscape.tasks.classtable import ClassEntry

CLASSES = tuple(ClassEntry(value, f"name {value}", "#000000") for value in (2, 5, 9))


def of(*columns):
    return np.array(columns, np.float32).T[:, None]


def test_measures():
    p = of([1, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.7, 0.1])
    assert margin(p, p.argmax(0))[0] == pytest.approx([1, 0, 0, 0.5], abs=1e-6)
    expected = -(0.2 * math.log(0.2) + 0.7 * math.log(0.7) + 0.1 * math.log(0.1)) / math.log(3)
    assert entropy(p)[0] == pytest.approx([0, math.log(2) / math.log(3), 1, expected], abs=1e-6)
    assert entropy(p).min() >= 0 and entropy(p).max() <= 1
    one = np.ones((1, 1, 2), np.float32)
    none = np.zeros((1, 2), np.uint8)
    assert entropy(one).tolist() == [[0, 0]]
    assert margin(one, none).tolist() == confidence(one, none).tolist() == [[1, 1]]


def test_confidence_and_margin_are_those_of_the_class_that_was_chosen():
    """A threshold of 0.1 maps the second class from 0.1 on: its confidence is not that of the first."""
    p = of([0.95, 0.05], [0.85, 0.15], [0.3, 0.7])
    chosen = np.array([[0, 1, 1]], np.uint8)
    assert confidence(p, chosen)[0] == pytest.approx([0.95, 0.15, 0.7])
    # The range is that of the legend and of one byte: the class that was chosen is not behind another by less than 0.
    assert margin(p, chosen)[0] == pytest.approx([0.9, 0, 0.4], abs=1e-6)
    three = of([0.5, 0.3, 0.2])
    assert margin(three, np.array([[1]]))[0, 0] == 0
    # No-data and "no finite score" stand in for a position.
    assert confidence(three, np.array([[255]], np.uint8)).shape == (1, 1)


def test_margin_equals_the_two_largest_of_a_sort():
    p = np.random.default_rng(0).dirichlet(np.ones(7), (20, 30)).astype(np.float32).transpose(2, 0, 1)
    top = np.sort(p, axis=0)[-2:]
    assert (margin(p, p.argmax(0)) == top[1] - top[0]).all() and (confidence(p, p.argmax(0)) == top[1]).all()


def test_only_what_is_asked_for_is_made():
    found = products_of(CLASSES, ["m.tif", "", "c.tif", "", "g.tif"])
    assert [(p.kind, p.path, p.dtype) for p in found] == [
        ("classes", "m.tif", "uint8"), ("confidence", "c.tif", "float32"), ("margin", "g.tif", "float32"),
    ]  # fmt: skip
    assert products_of(CLASSES, ["m.tif", "p.tif"])[1].descriptions == ("name 2", "name 5", "name 9")


@pytest.mark.parametrize(("stored", "tolerance"), [("float32", 0), ("uint8", 0.002)])
def test_values_and_no_data(stored, tolerance):
    p = of([0.2, 0.7, 0.1], [1, 0, 0], [math.nan] * 3, [0.4, 0.6, 0])
    valid = np.array([[True, True, False, True]])
    chosen = np.array([[1, 0, 255, 0]], np.uint8)
    products = products_of(CLASSES, ["m.tif", "p.tif", "c.tif", "e.tif", "g.tif"], stored)
    expected = {
        "probabilities": p, "entropy": entropy(p), "confidence": np.array([[0.7, 1, math.nan, 0.4]]),
        "margin": np.array([[0.5, 1, math.nan, 0]]),
    }  # fmt: skip
    for product in products[1:]:
        found = product.values(p, chosen, valid)
        assert found.dtype == stored and found.shape == (product.bands, 1, 4)
        missing = np.isnan(found) if stored == "float32" else found == product.nodata
        assert (missing == [False, False, True, False]).all()
        meant = found[:, valid] * product.scale
        wanted = np.broadcast_to(expected[product.kind], found.shape)[:, valid]
        assert np.abs(meant - wanted).max() <= tolerance + 1e-7


@pytest.mark.parametrize(
    ("classes", "given", "kept"),
    [(3, "uint8", "uint8"), (254, "uint8", "uint8"), (255, "uint8", "uint16"), (300, "uint16", "uint16")],
)
def test_positions_tell_no_data_from_no_finite_score(classes, given, kept):
    positions = np.array([[0, classes - 1, np.iinfo(given).max, 1]], given)
    valid = np.array([[True, True, True, False]])
    found = stored_positions(positions, valid, classes)
    top = np.iinfo(kept).max
    assert found.dtype == kept == positions_type(classes)
    assert found.tolist() == [[0, classes - 1, top - 1, top]]
    assert stored_positions(None, valid, classes).tolist() == [[top] * 4]
