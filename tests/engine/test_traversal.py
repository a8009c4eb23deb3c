"""Work in threads: order, bounds, cancelling, and errors as they are."""

import threading

import pytest
from deepscape.engine.traversal import in_order
from deepscape.tasks.errors import JobCancelled


def never():
    """No job is cancelled."""


def test_results_come_in_the_order_of_the_items_whichever_ends_first():
    second = threading.Event()

    def work(item):
        if item == 0:
            assert second.wait(10)
        if item == 1:
            second.set()
        return item, threading.current_thread().name

    found = list(in_order(range(20), work, 2, never))
    assert [item for item, _ in found] == list(range(20))
    assert all(name.startswith("map") for _, name in found)


def test_no_more_is_begun_than_the_caller_can_take():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(items(), lambda item: item, 3, never)
    assert next(results) == 0 and len(taken) == 7
    assert next(results) == 1 and len(taken) == 8
    results.close()
    assert len(taken) == 8


@pytest.mark.parametrize("beside", [1, 3])
def test_an_error_reaches_the_caller_as_it_is(beside):
    error = ZeroDivisionError("of the work")

    def work(item):
        if item == 5:
            raise error
        return item

    results, found = in_order(range(50), work, beside, never), []
    with pytest.raises(ZeroDivisionError) as raised:
        found.extend(results)
    assert raised.value is error and found == list(range(len(found))) and len(found) <= 5


def test_a_timeout_of_the_work_is_an_error_like_any_other():
    def work(item):
        raise TimeoutError("of the work")

    with pytest.raises(TimeoutError, match="of the work"):
        list(in_order(range(3), work, 1, never))


def test_cancelling_does_not_wait_for_the_work():
    release, begun, calls = threading.Event(), threading.Event(), []

    def work(item):
        calls.append(item)
        begun.set()
        assert release.wait(30)

    def check():
        if begun.is_set():
            raise JobCancelled()

    with pytest.raises(JobCancelled):
        list(in_order(range(50), work, 1, check))
    assert not release.is_set() and calls == [0]
    release.set()
