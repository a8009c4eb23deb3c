"""Numbers in words: lengths of time, the sides of an array, and the digits of sizes."""

import math

import numpy as np
import pytest
from deepscape.engine.wording import across_by_down, as_given, decimals_of, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.4, "8 s"), (89.0, "89 s"), (141.0, "2.4 min"), (596.0, "9.9 min"), (597.0, "10 min"), (5399.0, "90 min"),
     (5400.0, "1.5 h"), (166_000.0, "46 h")],
)  # fmt: skip
def test_durations_are_told_to_a_tenth(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6, "0.6"), (1.0, "1"), (1, "1"), (0.9999999, "0.9999999"), (0.1 + 0.5, "0.6"), (1.0000001, "1.0000001")],
)
def test_numbers_are_told_as_they_were_given(value, text):
    assert as_given(value) == text


def test_the_width_of_an_array_is_told_first():
    assert across_by_down(*np.zeros((237, 247)).shape) == "247 x 237"


@pytest.mark.parametrize(
    ("value", "decimals"),
    [(12_345.6, 0), (523.4, 0), (100.0, 0), (99.9, 1), (12.3, 1), (1.0, 2), (0.0312, 4), (-0.0312, 4), (0.0, 0),
     (1e-30, 15), (math.nan, 0), (math.inf, 0)],
)  # fmt: skip
def test_small_numbers_have_more_digits(value, decimals):
    assert decimals_of(value) == decimals
    assert decimals_of(0.0312, 6) == 7
