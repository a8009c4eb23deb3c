"""Counting of combinations."""

from collections import Counter

import numpy as np
import pytest
from deepscape.engine.assessmenttally import combinations, distinct, matrix_of


@pytest.mark.parametrize("values", [[-3, 0, 7, 300], [-(2**40), 0, 10**12], [5], [-1, 65534, 65535]])
def test_distinct_values_are_those_of_numpy(values):
    array = np.random.default_rng(1).choice(np.array(values, np.int64), 500)
    found, places = distinct(array)
    expected, inverse = np.unique(array, return_inverse=True)
    assert (found == expected).all() and (places == inverse).all()


def test_combinations_are_counted():
    generator = np.random.default_rng(2)
    arrays = [generator.choice(np.array(v, np.int64), 300) for v in ([-1], [0, 9], [-(2**40), 3, 2**40])]
    expected = Counter(zip(*(array.tolist() for array in arrays)))
    assert {tuple(found[:-1]): found[-1] for found in combinations(*arrays)} == expected
    assert list(combinations(np.empty(0, np.int64))) == []


def test_rows_are_the_reference():
    assert matrix_of({(1, 2): 5, (2, 2): 7}, [1, 2]).tolist() == [[0, 5], [0, 7]]
