"""Rates of classes: the strategies, and files of rates."""

import pytest
from deepscape.engine.rates import Rate, class_rates, rate, read_required, write_rates
from deepscape.tasks.errors import BadInput
from hypothesis import given
from hypothesis import strategies as st

PIXELS = {"a": 377, "b": 550, "c": 0, "d": 108}


@pytest.mark.parametrize(
    ("strategy", "required"),
    [
        ("upto", [300, 300, 0, 108]), ("constant", [300, 300, 0, 300]), ("smallest", [108, 108, 0, 108]),
        ("percent", [189, 275, 0, 54]), ("total", [109, 159, 0, 31]), ("byclass", [5, 0, 0, 900]),
        ("all", [377, 550, 0, 108]),
    ],
)  # fmt: skip
def test_strategies(strategy, required):
    rates = class_rates(strategy, PIXELS, 300, 0.5, {"a": 5, "d": 900, "e": 1})
    assert [each.required for each in rates.values()] == required
    assert [each.taken for each in rates.values()] == [min(n, of) for n, of in zip(required, PIXELS.values())]


def test_no_pixel_at_all_gives_no_sample():
    for strategy in ("upto", "smallest", "total", "percent", "all"):
        assert class_rates(strategy, {"a": 0}, 10, 0.5, {})["a"].taken == 0


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**9), min_size=1), st.integers(1, 10**6))
def test_total_is_met_within_the_rounding_of_each_class(pixels, count):
    rates = class_rates("total", pixels, count, 0.5, {})
    if sum(pixels.values()):
        assert abs(sum(each.required for each in rates.values()) - count) <= len(pixels)


def test_a_file_of_rates_is_that_of_the_reference_and_is_read_back(tmp_path):
    rates = {"b b": rate(500, 550), "a": rate(500, 377), "10": Rate(1, 375, 0.003)}
    path = write_rates(str(tmp_path / "rates"), rates)
    assert path == str(tmp_path / "rates.csv")
    assert (tmp_path / "rates.csv").read_text() == (
        "#className requiredSamples totalSamples rate\n10\t1\t375\t0.003\na\t500\t377\t1\nb b\t500\t550\t0.909091\n"
    )
    assert read_required(path) == {"10": 1, "a": 500, "b b": 500}


@pytest.mark.parametrize("separator", ["\t", ";", ",", " "])
def test_separators_and_comments(tmp_path, separator):
    text = f"# a comment\n\n  # another\n1{separator}7\n20{separator}0{separator}x\n"
    (tmp_path / "r.csv").write_text(text, encoding="utf-8-sig")
    assert read_required(str(tmp_path / "r.csv")) == {"1": 7, "20": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", "lists no class"), ("1;2\n3,4\n", r"Line 2 of .*'3,4'"), ("1;-2\n", "Line 1"),
        ("1;2.5", "Line 1"), ("1;2\n1;3", "class '1' twice"), ("water\n", r"Line 1 of .*'water'"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_required(str(tmp_path / "r.csv"))
    with pytest.raises(BadInput, match="cannot be read"):
        read_required(str(tmp_path / "none.csv"))
