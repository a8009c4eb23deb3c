"""What a training says at its end of a model that is of no use."""

import numpy as np
import pytest
from deepscape.engine.metrics import scores
from deepscape.engine.trainingreport import useless_sentence
from deepscape.models.cards import Card
from deepscape.tasks.classtable import ClassEntry

CLASSES = (ClassEntry(0, "background", "#d9d9d9"), ClassEntry(1, "buildings", "#332288"), ClassEntry(2, "x", "#000000"))


def sentence(matrix, kind="network", reported="validation"):
    card = Card(kind, "unet", (), CLASSES[: len(matrix)])
    return useless_sentence(scores(np.array(matrix)), reported, card)


def test_a_model_that_calls_everything_one_class_is_told_of():
    assert sentence([[0, 46940], [0, 53060]]) == (
        "On the validation samples the network calls everything 'buildings'. It has learned nothing yet: look whether "
        "the labels lie on what they name. Train longer (EPOCHS), try another LEARNING_RATE, or give more labels."
    )


def test_a_model_that_guesses_is_told_of_with_what_the_largest_class_alone_would_give():
    assert sentence([[271, 13925], [10, 1154]], "forest", "test") == (
        "On the test samples the Random Forest is hardly better than chance (kappa 0.002): it is right for 9.3 %, and "
        "calling everything 'background' would be for 92.4 %. It has learned nothing yet: look whether the labels lie "
        "on what they name. Give other bands or features, or give more labels."
    )


@pytest.mark.parametrize(
    "matrix",
    [
        [[900, 60], [30, 10]],  # a rare class that is found seldom, and more often than by chance
        [[60, 40], [40, 60]],
        [[8000, 1900], [30, 70]],  # kappa 0.0495, and less right than the background alone, as balanced weights have it
        [[9900, 0], [97, 3]],  # a mean recall of 0.515
        [[0, 10], [0, 0]],  # one class of reference tells nothing of the others
        [[10, 0], [0, 0]],
        [[0, 0], [0, 0]],
        [[50, 0, 0], [50, 0, 50], [0, 0, 50]],  # a class that is never mapped
    ],
)
def test_of_a_model_that_knows_something_nothing_is_said(matrix):
    assert sentence(matrix) == ""
