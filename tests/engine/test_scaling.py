"""Scaling in the first convolutions: the same numbers as before them, in every case that has that form."""

import numpy as np
import pytest
import torch
from deepscape.engine.densify import dense_network
from deepscape.engine.scaling import of_physical_values
from deepscape.engine.unpadding import unpadded_network
from deepscape.models.cards import Card, CardBand, CardSource
from deepscape.tasks.classtable import ClassEntry
from torch import nn

SIZE = 5


def card_of(means, stds, size=SIZE):
    bands = tuple(CardBand(f"B{i}", mean, std, mean, std) for i, (mean, std) in enumerate(zip(means, stds)))
    return Card("network", "any", (CardSource(size, bands),), (ClassEntry(1, "one", "#000000"),) * 3)


class Patches(nn.Module):
    """Two convolutions read the patch, one without a bias."""

    def __init__(self, bands=3):
        super().__init__()
        torch.manual_seed(1)
        self.one = nn.Conv2d(bands, 4, 3)
        self.other = nn.Conv2d(bands, 4, 3, bias=False)
        self.classifier = nn.Conv2d(4, 3, 3)

    def forward(self, x):
        return self.classifier(torch.relu(self.one(x)) * self.other(x)).flatten(1)


class Skipping(Patches):
    """The patch is read by a convolution, and by a multiplication as well."""

    def forward(self, x):
        return super().forward(x * 2 + x)


def images(means, stds, side=12):
    rng = np.random.default_rng(2)
    shape = -1, 1, 1
    values = np.reshape(means, shape) + np.reshape(stds, shape) * rng.normal(size=(2, len(means), side, side))
    return torch.from_numpy(values.astype(np.float32))


def exact(network, values, means, stds):
    """Return the logits of standardised values, in float64."""
    mean, std = (torch.tensor(numbers).double().reshape(1, -1, 1, 1) for numbers in (means, stds))
    with torch.no_grad():
        return network.double()((values.double() - mean) / std)


@pytest.mark.parametrize(
    ("means", "stds", "left"),
    [
        ((700.0, 1200.0, 0.3), (250.0, 400.0, 0.1), set()),
        # 1000 deviations from zero: sums of such values would lose digits, so that the mean is taken away before.
        ((700.0, 1200.0, 100.0), (250.0, 400.0, 0.1), {"mean"}),
        ((0.0, -3.0, 0.0), (1e-6, 1.0, 1e6), set()),
    ],
)
def test_convolutions_take_over_the_scaling(means, stds, left):
    network = dense_network(Patches().eval(), 3, SIZE)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    scaled = of_physical_values(network, card_of(means, stds))
    assert {name for name in ("mean", "std") if getattr(scaled, name) is not None} == left
    values = images(means, stds)
    with torch.no_grad():
        found = scaled(values)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    expected = exact(network, values, means, stds)
    assert found.shape == expected.shape == (2, 3, 8, 8)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_margins_stand_for_means_so_that_such_convolutions_take_over_nothing():
    padded = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    means, stds = (50.0, 80.0), (10.0, 20.0)
    kept = of_physical_values(padded, card_of(means, stds))
    assert kept.network is padded and kept.mean is not None and kept.std is not None
    traced = torch.export.export(padded, (torch.zeros(1, 2, 12, 12),)).module()
    assert of_physical_values(traced, card_of(means, stds)).mean is not None
    # Without its margins the same network takes it over.
    values = images(means, stds)
    cropped = of_physical_values(unpadded_network(padded, 2, 1, 1), card_of(means, stds))
    assert cropped.mean is None and cropped.std is None
    with torch.no_grad():
        found = cropped(values)
    expected = exact(padded, values, means, stds)[:, :, 1:-1, 1:-1]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_an_image_that_something_else_reads_is_scaled_before():
    network = dense_network(Skipping().eval(), 3, SIZE)
    means, stds = (700.0, 1200.0, 0.3), (250.0, 400.0, 0.1)
    scaled = of_physical_values(network, card_of(means, stds))
    assert scaled.mean.flatten().tolist() == pytest.approx(means) and scaled.std.flatten().tolist() == pytest.approx(
        stds
    )
    values = images(means, stds)
    with torch.no_grad():
        found = scaled(values)
    expected = exact(network, values, means, stds)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_deviation_that_weights_cannot_hold_stays_outside():
    means, stds = (0.0, 0.0, 0.0), (1e-45, 1.0, 1.0)
    scaled = of_physical_values(dense_network(Patches().eval(), 3, SIZE), card_of(means, stds))
    assert scaled.std is not None
