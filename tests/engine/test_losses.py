"""Losses of segmentation against torch, scikit-learn and their definitions, in float64."""

import numpy as np
import pytest
import torch
from deepscape.engine.losses import loss_function
from deepscape.tasks.errors import BadInput
from deepscape.tasks.jobs import SEGMENTATION_LOSSES
from sklearn.metrics import f1_score, jaccard_score
from torch.nn import functional

ALL = (*SEGMENTATION_LOSSES, "cross_entropy+dice")
CLASSES = 4


def batch(classes=CLASSES, seed=0, ignored=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 6, 5, generator=generator, dtype=dtype)
    targets = torch.randint(classes, (2, 6, 5), generator=generator)
    if ignored:
        targets[torch.rand(targets.shape, generator=generator) < 0.3] = -1
    return logits, targets


def binary_batch(seed=0):
    logits, targets = batch(2, seed)
    return torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], 1), targets


def labelled(logits, targets):
    """Return probabilities (P, K) and targets (P,) as arrays."""
    shares = torch.softmax(logits, 1).movedim(1, -1)[targets >= 0]
    return shares.numpy(), targets[targets >= 0].numpy()


def hard(classes=CLASSES, seed=3):
    """Return logits that are certain of random classes, those classes, and targets."""
    found = batch(classes, seed + 1, ignored=False)[1]
    return 1000.0 * functional.one_hot(found, classes).movedim(-1, 1).double(), found, batch(classes, seed)[1]


def lovasz_by_definition(errors, truth):
    """Return the Lovasz extension of the set function "Jaccard loss if exactly the pixels of a set are wrong"."""

    def jaccard_loss(wrong):
        found = truth ^ wrong
        union = (truth | found).sum()
        return 0.0 if union == 0 else 1 - (truth & found).sum() / union

    total, wrong = 0.0, np.zeros(len(truth), bool)
    for number in np.argsort(-errors):
        before = jaccard_loss(wrong)
        wrong = wrong.copy()
        wrong[number] = True
        total += errors[number] * (jaccard_loss(wrong) - before)
    return total


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0, 0.0])])
def test_cross_entropy_is_torch_s(weights):
    logits, targets = batch()
    wanted = functional.cross_entropy(logits, targets, None if weights is None else weights.double(), ignore_index=-1)
    assert float(loss_function("cross_entropy", CLASSES, weights)(logits, targets)) == pytest.approx(float(wanted))


def test_cross_entropy_of_a_binary_model_is_that_of_its_logit():
    logits, targets = binary_batch()
    kept = targets >= 0
    wanted = functional.binary_cross_entropy_with_logits(logits[:, 1][kept], targets[kept].double())
    found = loss_function("cross_entropy", 2, binary=True)(logits, targets)
    assert float(found) == pytest.approx(float(wanted))


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0, 2.0])])
def test_focal_is_its_formula(weights):
    logits, targets = batch()
    shares, truth = labelled(logits, targets)
    right = shares[np.arange(len(truth)), truth]
    share = np.ones(len(truth)) if weights is None else weights.double().numpy()[truth]
    wanted = (share * -((1 - right) ** 2) * np.log(right)).sum() / share.sum()
    assert float(loss_function("focal", CLASSES, weights)(logits, targets)) == pytest.approx(wanted)


def test_focal_of_a_binary_model_is_the_sigmoid_form():
    logits, targets = binary_batch()
    second = torch.sigmoid(logits[:, 1])[targets >= 0].numpy()
    right = np.where(targets[targets >= 0].numpy() == 1, second, 1 - second)
    wanted = (-((1 - right) ** 2) * np.log(right)).mean()
    assert float(loss_function("focal", 2, binary=True)(logits, targets)) == pytest.approx(wanted)


@pytest.mark.parametrize(("name", "a", "b"), [("dice", 0.5, 0.5), ("tversky", 0.3, 0.7)])
def test_dice_and_tversky_are_their_formula(name, a, b):
    logits, targets = batch()
    targets[targets == 2] = -1  # absent: left out of the mean
    shares, truth = labelled(logits, targets)
    found = []
    for position in (0, 1, 3):
        p, g = shares[:, position], truth == position
        hits, wrong, missed = (p * g).sum(), (p * ~g).sum(), ((1 - p) * g).sum()
        found.append((hits + 0.5) / (hits + a * wrong + b * missed + 0.5))
    assert float(loss_function(name, CLASSES)(logits, targets)) == pytest.approx(1 - np.mean(found))


def test_dice_has_the_course_s_form():
    logits, targets = binary_batch()
    p, g = labelled(logits, targets)
    p = p[:, 1]
    wanted = 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)
    assert float(loss_function("dice", 2, binary=True)(logits, targets)) == pytest.approx(wanted)


def test_dice_of_certain_answers_is_one_minus_f1_but_for_the_smoothing():
    logits, found, targets = hard()
    kept = targets >= 0
    # 40 copies of the batch: the smoothing of 1 weighs as little as in real ones.
    loss = loss_function("dice", CLASSES)(logits.repeat(40, 1, 1, 1), targets.repeat(40, 1, 1))
    wanted = 1 - f1_score(targets[kept].numpy(), found[kept].numpy(), average="macro")
    assert float(loss) == pytest.approx(wanted, abs=1e-3)


def test_tversky_with_halves_is_dice(monkeypatch):
    monkeypatch.setattr("deepscape.engine.losses.FALSE_POSITIVES", 0.5)
    monkeypatch.setattr("deepscape.engine.losses.FALSE_NEGATIVES", 0.5)
    logits, targets = batch()
    dice, tversky = (loss_function(name, CLASSES)(logits, targets) for name in ("dice", "tversky"))
    assert float(tversky) == pytest.approx(float(dice), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_lovasz_is_the_extension_by_its_definition(seed):
    logits, targets = batch(seed=seed)
    targets[targets == 1] = -1  # absent: left out of the mean
    shares, truth = labelled(logits, targets)
    terms = [lovasz_by_definition(np.abs((truth == k) - shares[:, k]), truth == k) for k in (0, 2, 3)]
    assert float(loss_function("lovasz", CLASSES)(logits, targets)) == pytest.approx(np.mean(terms), rel=1e-12)


@pytest.mark.parametrize("present", [True, False])
def test_lovasz_of_a_binary_model_looks_at_the_second_class(present):
    logits, targets = binary_batch()
    if not present:
        targets[targets == 1] = 0
    shares, truth = labelled(logits, targets)
    wanted = lovasz_by_definition(np.abs((truth == 1) - shares[:, 1]), truth == 1)
    found = loss_function("lovasz", 2, binary=True)(logits, targets)
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_lovasz_of_certain_answers_is_one_minus_jaccard():
    logits, found, targets = hard()
    kept = targets >= 0
    wanted = 1 - jaccard_score(targets[kept].numpy(), found[kept].numpy(), average="macro")
    assert float(loss_function("lovasz", CLASSES)(logits, targets)) == pytest.approx(wanted, rel=1e-12)


def test_lovasz_keeps_its_digits_in_a_large_batch():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(4, 2, 256, 256, generator=generator)
    targets = (torch.rand(4, 256, 256, generator=generator) < 0.2).long()
    loss = loss_function("lovasz", 2)
    assert float(loss(logits, targets)) == pytest.approx(float(loss(logits.double(), targets)), rel=1e-5)


def test_a_sum_is_the_sum():
    logits, targets = batch()
    parts = [float(loss_function(name, CLASSES)(logits, targets)) for name in ("focal", "lovasz", "dice")]
    assert float(loss_function("focal+lovasz+dice", CLASSES)(logits, targets)) == pytest.approx(sum(parts))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_the_loss(name, binary):
    logits, targets = binary_batch() if binary else batch()
    loss = loss_function(name, logits.shape[1], binary=binary)
    assert torch.autograd.gradcheck(lambda values: loss(values, targets), (logits.requires_grad_(),))


@pytest.mark.parametrize("name", ALL)
def test_ignored_pixels_have_no_gradient_and_no_say(name):
    logits, targets = batch(dtype=torch.float32)
    logits.requires_grad_()
    loss = loss_function(name, CLASSES)
    first = loss(logits, targets)
    (gradient,) = torch.autograd.grad(first, logits)
    ignored = (targets < 0)[:, None].expand_as(logits)
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()
    with torch.no_grad():
        assert float(loss(torch.where(ignored, torch.tensor(torch.nan), logits), targets)) == float(first)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_without_labels_is_zero_and_moves_nothing(name):
    logits = torch.full((2, CLASSES, 3, 3), torch.inf, requires_grad=True)
    found = loss_function(name, CLASSES)(logits, torch.full((2, 3, 3), -1))
    found.backward()
    assert found.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sign", [1, -1])
def test_certain_answers_have_finite_gradients(name, sign):
    logits, _, targets = hard()
    logits = (sign * logits).float().requires_grad_()
    found = loss_function(name, CLASSES)(logits, targets)
    found.backward()
    assert torch.isfinite(found)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_classes_of_no_weight_move_nothing(name):
    logits, targets = batch()
    logits.requires_grad_()
    found = loss_function(name, CLASSES, torch.zeros(CLASSES))(logits, targets)
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_computed_in_single(name):
    logits, targets = batch(dtype=torch.float32)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_function(name, CLASSES)(half, targets)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss_function(name, CLASSES)(half.double(), targets)), rel=1e-5)


def test_a_loss_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="no loss 'jaccard'") as caught:
        loss_function("dice+jaccard", CLASSES)
    for name in SEGMENTATION_LOSSES:
        assert name in caught.value.remedy
    with pytest.raises(ValueError, match="3 classes"):
        loss_function("dice", 3, binary=True)
