"""Which windows stand in a report, and what is read for it."""

import numpy as np
import pytest
from deepscape.engine.previews import telling_windows

SIDE = 8


class Windows:
    """A part whose windows are labelled as given: number -> class of each labelled pixel, in rows from the top."""

    def __init__(self, count, labelled):
        self._count, self._labelled, self.asked = count, labelled, []

    def __len__(self):
        return self._count

    def read(self, numbers, epoch=0):
        self.asked += numbers
        targets = np.full((len(numbers), SIDE * SIDE), -1)
        for row, number in zip(targets, numbers):
            classes = self._labelled.get(number, [])
            row[: len(classes)] = classes
        return np.zeros((len(numbers), 1, SIDE, SIDE), np.float32), targets.reshape(-1, SIDE, SIDE)


def test_windows_of_many_labelled_pixels_and_classes_are_shown_the_best_first():
    part = Windows(40, {4: [0] * 3, 9: [0] * 64, 13: [0] * 30 + [1] * 30, 17: [1] * 50, 21: [1] * 20 + [2] * 20})
    # Of the first ten the one that is labelled all over, of the second the one of two classes; of the third two again.
    assert telling_windows(part, 4)[:3] == [13, 21, 9]
    # Of the last stretch nothing is labelled: it is still shown, at the end.
    assert telling_windows(part, 4)[3] == 30
    assert telling_windows(part, 4) == telling_windows(part, 4)


def test_one_class_all_over_tells_more_than_a_speck_of_another_and_less_than_two_of_many_pixels():
    assert telling_windows(Windows(2, {0: [0] * 31 + [1], 1: [0] * 64}), 1) == [1]
    assert telling_windows(Windows(2, {0: [0] * 64, 1: [0] * 20 + [1] * 20}), 1) == [1]


@pytest.mark.parametrize(("size", "shown"), [(0, []), (1, [0]), (3, [2, 0, 1])])
def test_small_parts_are_shown_as_a_whole(size, shown):
    assert telling_windows(Windows(size, {2: [0] * 9, 0: [1]}), 4) == shown


def test_of_a_large_part_few_windows_are_read():
    part, looks = Windows(100_000, {0: [0], 99_999: [1]}), []
    found = telling_windows(part, 4, lambda: looks.append(len(part.asked)))
    assert len(part.asked) == len(set(part.asked)) == 64 and looks == list(range(0, 64, 8))
    assert found[:2] == [0, 99_999] and [number // 25_000 for number in sorted(found)] == [0, 1, 2, 3]
