"""Other priors and a threshold: Bayes' rule, expectation maximisation, and what a file of shares may hold."""

from dataclasses import replace

import numpy as np
import pytest
from deepscape.engine.priors import deciding, shares_of_file
from deepscape.engine.runtimes import Geometry
from deepscape.engine.runtimes.base import first_largest, no_class, softmax
from deepscape.engine.runtimes.deciding import DecidingRuntime, check_threshold, estimated_shares, learned_shares
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from deepscape.tasks.context import Context
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import Classify, RasterSource

from .listening import Log

ALL = np.ones((1, 1), bool)


class Logits:
    """A runtime whose scores are the values."""

    name, device, precision, geometry, beside, bytes_per_pixel, exact = (
        "fake",
        "cpu",
        "full",
        Geometry(0, 0),
        1,
        1,
        True,
    )

    def best(self, values, wanted, whole=False):
        return first_largest(self.scores(values, wanted, whole))

    def scores(self, values, wanted, whole=False):
        return np.asarray(values, np.float32)

    def probabilities(self, scores):
        return softmax(scores)


def card(counts=(300, 100), weights="none", **fields):
    table = tuple(ClassEntry(value, name, "#112233") for value, name in zip((3, 7, 9), ("Wald", "See", "Ort")))
    table = table[: len(counts)]
    training = {"counts": {"training": {str(entry.value): count for entry, count in zip(table, counts)}}}
    source = CardSource(1, (CardBand("B1", 0, 1, 0, 1),))
    return Card("network", "unet", (source,), table, training=training, settings={"class_weights": weights}, **fields)


def job(**fields):
    return Classify(RasterSource("a.tif"), "m", "map.tif", **fields)


def logits(*probabilities):
    return np.log(np.array(probabilities, np.float64))[:, None, None]


def test_bayes_rule():
    runtime = DecidingRuntime(Logits(), np.array([0.5 / 0.75, 0.5 / 0.25]), None)
    scores = runtime.scores(logits(0.6, 0.4), ALL)
    # 0.6 x 2/3 against 0.4 x 2.
    assert runtime.probabilities(scores)[:, 0, 0] == pytest.approx([0.4 / 1.2, 0.8 / 1.2])
    assert runtime.best(logits(0.6, 0.4), ALL)[0, 0] == 1


@pytest.mark.parametrize(
    ("share", "threshold", "expected"),
    [(0.3, 0.3, 1), (0.2999, 0.3, 0), (0.3001, 0.3, 1), (0.7, 0.8, 0), (0.5, 0.5, 1), (0.0, 0.0, 1), (0.999, 1.0, 0)],
)
def test_the_second_class_from_the_threshold_on(share, threshold, expected):
    runtime = DecidingRuntime(Logits(), None, threshold)
    with np.errstate(divide="ignore"):
        values = logits(1 - share, share)
    if share:
        assert runtime.best(values, ALL)[0, 0] == expected
    # The probabilities stay what they are.
    assert runtime.probabilities(runtime.scores(values, ALL))[1, 0, 0] == pytest.approx(share, abs=1e-6)


def test_what_is_not_finite_has_no_class():
    found = DecidingRuntime(Logits(), None, 0.4).best(np.full((2, 1, 1), np.nan), ALL)
    assert found[0, 0] == no_class(found)


def test_shares_that_a_model_takes_for_granted():
    assert learned_shares(card()).tolist() == [0.75, 0.25]
    assert learned_shares(card(weights="balanced")).tolist() == [0.5, 0.5]
    told = replace(card(), settings={"class_weights": "balanced", "learned_shares": [0.4, 0.6]})
    assert learned_shares(told).tolist() == [0.4, 0.6]
    with pytest.raises(BadInput, match="does not tell"):
        learned_shares(replace(card(), training={}))


def test_shares_are_estimated_as_they_are():
    rng = np.random.default_rng(0)
    learned, real = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    kinds = rng.choice(3, 40_000, p=real)
    # One band, of known densities: the posterior of equal shares of training is exact.
    x = rng.normal(kinds * 1.5, 1.0)
    likelihood = np.exp(-((x[None] - 1.5 * np.arange(3)[:, None]) ** 2) / 2)
    posterior = likelihood * learned[:, None]
    values = np.log(posterior / posterior.sum(axis=0)).reshape(3, 200, 200)
    found = estimated_shares(Logits(), learned, [(values, np.ones((200, 200), bool))])
    assert found == pytest.approx(real, abs=0.02)


def test_nothing_changes_where_nothing_is_asked_for():
    runtime = Logits()
    assert deciding(runtime, job(), [card()], list, Context()) is runtime


def test_the_card_s_threshold_is_the_job_s_where_it_names_none():
    own = replace(card(), threshold=0.2)
    values = logits(0.7, 0.3)
    assert deciding(Logits(), job(), [own], list, Context()).best(values, ALL)[0, 0] == 1
    assert deciding(Logits(), job(threshold=0.4), [own], list, Context()).best(values, ALL)[0, 0] == 0


def test_several_models_map_from_the_mean_of_their_thresholds_on():
    cards = [replace(card(), threshold=0.2), replace(card(), threshold=0.3), card()]
    assert check_threshold(None, cards) == pytest.approx((0.2 + 0.3 + 0.5) / 3)
    assert check_threshold(None, [cards[0]] * 3) == 0.2
    assert check_threshold(0.6, cards) == 0.6 and check_threshold(None, [card()] * 2) is None
    context = Log()
    assert deciding(Logits(), job(), [cards[0]] * 2, list, context).best(logits(0.7, 0.3), ALL)[0, 0] == 1
    assert "from a probability of 0.2 on, the mean of the models' thresholds" in context.lines[-1]


@pytest.mark.parametrize("threshold", [0.6, 0.9999999])
def test_a_threshold_is_told_as_it_was_given(threshold):
    context = Log()
    deciding(Logits(), job(threshold=threshold), [card()], list, context)
    assert f"is mapped from a probability of {threshold} on." in context.lines[-1]
    with pytest.raises(BadInput, match=f"THRESHOLD is {threshold}, but the model has 1 classes"):
        check_threshold(threshold, [replace(card(), classes=card().classes[:1])])
    with pytest.raises(BadInput, match=r"THRESHOLD is 1\.0000001, which is no share"):
        job(threshold=1.0000001)


def test_equal_shares_of_a_balanced_model_change_nothing():
    runtime = Logits()
    assert deciding(runtime, job(priors="equal"), [card(weights="balanced")], list, Context()) is runtime


@pytest.mark.parametrize("text", ["class;share\nWald;1\n7;3\n", "# shares\n3,0.25\nsee,0.75", "\ufeff3\t25\n7\t75\n"])
def test_a_file_of_shares(tmp_path, text):
    path = tmp_path / "Anteile.csv"
    path.write_text(text, encoding="utf-8")
    assert shares_of_file(str(path), card(), Context()).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,1", "names the class '5'"),
        ("3,x\n7,y", "is no number"),
        ("3,0\n7,0", "above 0"),
        ("3,-1\n7,2", "is no number"),
        ("3,0.25", "gives no share of See, and the others add up to 0.25"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "shares.csv"
    path.write_text(f"class,share\n{text}")
    with pytest.raises(BadInput) as caught:
        shares_of_file(str(path), card(), Context())
    assert message in caught.value.message


def test_wishes_that_fit_nothing_are_refused():
    with pytest.raises(BadInput, match="but the model has 3 classes"):
        deciding(Logits(), job(threshold=0.4), [card((1, 1, 1))], list, Context())
    with pytest.raises(BadInput, match="PRIORS is file, and PRIORS_FILE is missing"):
        job(priors="file")
    with pytest.raises(BadInput, match="PRIORS is equal, and PRIORS_FILE is given"):
        job(priors="equal", priors_file="a.csv")
