"""Optimisers and schedules against torch's, their state, the recipes and the learning-rate finder."""

import copy
import json
from dataclasses import fields

import pytest
import torch
from deepscape.engine.optimising import OptimiserSettings, Optimising, find_learning_rate
from deepscape.models.recipes import PRESETS
from deepscape.tasks.jobs import MONITORS, OPTIMIZERS, SEGMENTATION_LOSSES, SEGMENTATION_RECIPES
from torch import nn
from torch.optim import lr_scheduler

SCHEDULES = ("onecycle", "plateau", "steps", "constant", "cosine")
STEPS, EPOCHS = 5, 8
LOSSES = (1.0, 0.9, 0.91, 0.92, 0.93, 0.8999999, 0.95, 0.5)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).to(
        memory_format=torch.channels_last
    )


def train(net, optimising, first, last):
    """Run the steps first ... last - 1; each has its own data."""
    for step in range(first, last):
        torch.manual_seed(1000 + step)
        loss = net(torch.randn(4, 3, 6, 6)).square().mean()
        optimising.optimizer.zero_grad()
        loss.backward()
        optimising.optimizer.step()
        optimising.after_step()
        if (step + 1) % STEPS == 0:
            optimising.after_epoch(LOSSES[step // STEPS])


def settings(optimizer="adamw", schedule="onecycle", averaging=0.0):
    return OptimiserSettings(
        optimizer, schedule, learning_rate=0.01, momentum=0.9 if optimizer == "sgd" else 0.0, plateau=1, steps=(2, 3),
        averaging=averaging,
    )  # fmt: skip


@pytest.mark.parametrize("averaging", [0.0, 0.3])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name != "auto"])
def test_a_loaded_state_continues_to_the_bit(optimizer, schedule, averaging):
    first = network()
    whole = Optimising(first, settings(optimizer, schedule, averaging), STEPS, EPOCHS)
    train(first, whole, 0, 22)
    plain, tensors = whole.state()
    weights = copy.deepcopy(first.state_dict())
    train(first, whole, 22, 40)

    second = network(seed=1)
    later = Optimising(second, settings(optimizer, schedule, averaging), STEPS, EPOCHS)
    second.load_state_dict(weights)
    # As a file has them: plain text, and tensors of no particular memory format.
    later.load(json.loads(json.dumps(plain)), {name: tensor.contiguous() for name, tensor in tensors.items()})
    train(second, later, 22, 40)
    whole.keep_average()
    later.keep_average()
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
    assert later.rate == whole.rate


@pytest.mark.parametrize("averaging", [0.0, 0.3])
def test_a_state_does_not_change_while_training_goes_on(averaging):
    net = network()
    optimising = Optimising(net, settings(averaging=averaging), STEPS, EPOCHS)
    assert optimising.state()[1] == {}
    train(net, optimising, 0, 3)
    plain, tensors = optimising.state()
    kept = copy.deepcopy((plain, tensors))
    train(net, optimising, 3, 6)
    assert plain == kept[0]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in tensors.items())


def test_the_mean_of_the_weights_is_that_of_all_steps_the_latest_weighing_most():
    net = network()
    share, horizon = 0.3, 0.3 * STEPS * EPOCHS
    optimising = Optimising(net, settings(averaging=share), STEPS, EPOCHS)
    with optimising.averaged():  # nothing to average yet
        assert torch.equal(net[0].weight, network()[0].weight)
    seen = []
    for step in range(9):
        train(net, optimising, step, step + 1)
        seen.append({name: tensor.double().clone() for name, tensor in net.state_dict().items()})
    parts = torch.tensor([(1 - 1 / horizon) ** back for back in reversed(range(9))], dtype=torch.float64)
    parts /= parts.sum()
    own = copy.deepcopy(net.state_dict())
    with optimising.averaged():
        mean = copy.deepcopy(net.state_dict())
    assert all(torch.equal(tensor, own[name]) for name, tensor in net.state_dict().items())
    counter = "1.num_batches_tracked"
    assert mean.pop(counter) == own[counter] == 9
    for name, tensor in mean.items():
        wanted = sum(part * before[name] for part, before in zip(parts, seen))
        assert torch.allclose(tensor.double(), wanted, rtol=1e-5, atol=1e-7) and not torch.equal(tensor, own[name])
    optimising.keep_average()
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in mean.items())


def test_weights_that_are_looked_at_are_given_back_though_looking_fails():
    net = network()
    optimising = Optimising(net, settings(averaging=0.5), STEPS, EPOCHS)
    train(net, optimising, 0, 3)
    own = copy.deepcopy(net.state_dict())
    with pytest.raises(KeyboardInterrupt), optimising.averaged():
        assert not torch.equal(net[0].weight, own["0.weight"])
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, own[name]) for name, tensor in net.state_dict().items())


def rates(schedule, **more):
    """Return the rate of every step."""
    optimising = Optimising(network(), OptimiserSettings("sgd", schedule, 0.1, **more), STEPS, EPOCHS)
    found = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            found.append(optimising.rate)
            assert all(group["lr"] == optimising.rate for group in optimising.optimizer.param_groups)
            optimising.after_step()
        optimising.after_epoch(LOSSES[epoch])
    return found


def torch_rates(make, per_step, losses=None):
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    schedule = make(optimizer)
    found = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_step and len(found) < STEPS * EPOCHS:
                schedule.step()
        if not per_step:
            schedule.step(*([losses[epoch]] if losses else []))
    return found


def one_cycle(total, share):
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total, pct_start=share)


def test_schedules_are_torch_s():
    total = STEPS * EPOCHS
    for share in (0.3, 0.5):
        wanted = torch_rates(one_cycle(total, share), True)
        assert rates("onecycle", warm_up=share) == pytest.approx(wanted, rel=1e-9)
    assert rates("cosine") == pytest.approx(torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, total), True))
    assert rates("steps", steps=(2, 3, 6)) == pytest.approx(
        torch_rates(lambda o: lr_scheduler.MultiStepLR(o, [2, 3, 6], 0.1), False)
    )
    assert rates("constant") == [0.1] * total


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
def test_plateau_is_torch_s(patience):
    found = rates("plateau", plateau=patience)
    assert found == pytest.approx(
        torch_rates(lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=patience), False, LOSSES)
    )
    assert (found[-1] < 0.1) == (patience < 5)


def test_adamw_decays_weights_and_no_biases_or_scales():
    groups = Optimising(network(), settings(), STEPS, EPOCHS).optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [[p.ndim for p in group["params"]] for group in groups] == [[4, 4], [1, 1, 1, 1]]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_adam_and_sgd_are_plain(optimizer):
    found = Optimising(network(), settings(optimizer), STEPS, EPOCHS).optimizer
    assert isinstance(found, {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer])
    (group,) = found.param_groups
    assert group["weight_decay"] == 0.01
    assert len(group["params"]) == 6
    if optimizer == "sgd":
        assert group["momentum"] == 0.9


def test_frozen_weights_are_left_alone():
    net = network()
    net[0].weight.requires_grad_(False)
    groups = Optimising(net, settings(), STEPS, EPOCHS).optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == 5


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_every_recipe_is_offered_and_can_be_followed():
    assert tuple(PRESETS) == SEGMENTATION_RECIPES
    for preset in PRESETS.values():
        assert preset.optimizer in OPTIMIZERS
        assert preset.schedule in SCHEDULES
        assert preset.monitor in MONITORS
        assert set(preset.loss.split("+")) <= set(SEGMENTATION_LOSSES)


def test_every_setting_of_an_optimiser_has_its_name_in_a_recipe():
    assert {each.name for each in fields(OptimiserSettings)} <= {each.name for each in fields(PRESETS["default"])}


def test_the_recipes_are_those_that_are_published():
    course, notebook, otbtf = (PRESETS[name] for name in ("course", "notebook", "otbtf"))
    assert (course.optimizer, course.learning_rate, course.batch_size, course.epochs) == ("adam", 1e-4, 64, 100)
    assert (course.schedule, course.factor, course.plateau) == ("plateau", 0.1, 5)
    assert (course.patience, course.monitor, course.windows) == (10, "loss", 1200)
    assert (notebook.optimizer, notebook.learning_rate, notebook.momentum) == ("sgd", 0.01, 0.9)
    assert (notebook.weight_decay, notebook.schedule, notebook.factor) == (5e-4, "steps", 0.1)
    assert (notebook.steps, notebook.epochs, notebook.batch_size, notebook.windows) == ((25, 35, 45), 50, 10, 10_000)
    assert (notebook.patience, notebook.loss) == (0, "cross_entropy")
    assert (otbtf.optimizer, otbtf.learning_rate, otbtf.batch_size) == ("adam", 2e-4, 100)
    assert (otbtf.epochs, otbtf.patience, otbtf.schedule) == (100, 0, "constant")


# --- the range test --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curvature", [10.0, 100.0, 1000.0])
def test_the_rate_found_suits_the_curvature(curvature):
    place = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def step(rate):
        loss = float(curvature / 2 * place.square().sum())
        place.sub_(rate * curvature * place)
        return loss

    rate, curve = find_learning_rate(step)
    # Gradient descent on a parabola diverges from 2 / curvature on.
    assert 1e-3 / curvature < rate < 2 / curvature
    assert curve[-1][0] < 1
    assert [each[0] for each in curve] == sorted(each[0] for each in curve)


def test_the_rate_found_trains_a_network():
    torch.manual_seed(0)
    values = torch.randn(64, 3, 6, 6)
    targets = (values.sum(1) > 0).long()[:, 1:-1, 1:-1]

    def stepper(net):
        optimizer = torch.optim.AdamW(net.parameters())

        def step(rate):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(values), targets)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    rate, curve = find_learning_rate(stepper(network()))
    assert 1e-5 < rate < 1
    assert len(curve) <= 60
    step = stepper(network())
    losses = [step(rate) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_loss_that_is_no_number_ends_the_test():
    seen = []

    def step(rate):
        seen.append(rate)
        return 1.0 - 0.01 * len(seen) if rate < 1e-2 else float("nan")

    rate, curve = find_learning_rate(step)
    assert rate < 1e-2
    assert len(curve) == len(seen) - 1
    assert find_learning_rate(lambda rate: float("inf")) == (1e-6, [])
