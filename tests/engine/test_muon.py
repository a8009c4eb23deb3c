"""Muon: orthogonal steps for matrices, AdamW for the rest."""

import pytest
import torch
from deepscape.engine.muon import Muon, orthogonal
from torch import nn


@pytest.mark.parametrize("shape", [(8, 8), (16, 144), (144, 16), (64, 576)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(0, -1.5, shape[1])
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    levelled = torch.linalg.svdvals(found)
    assert 0.6 < levelled.min() and levelled.max() < 1.25 and values.max() > 2 * values.min()
    # What is left in the directions of the old singular vectors is the diagonal.
    inner = left.T @ found @ right.T
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3


def test_the_scale_of_a_gradient_does_not_matter_and_none_is_no_step():
    torch.manual_seed(0)
    matrix = torch.randn(16, 40)
    assert torch.allclose(orthogonal(1e4 * matrix), orthogonal(matrix), atol=1e-4)
    assert torch.equal(orthogonal(torch.zeros(16, 40)), torch.zeros(16, 40))


class Mixed(nn.Module):
    """One of each kind of weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.norm = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.linear = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.linear(self.up(self.norm(self.depthwise(self.conv(x)))))


def stepped(optimizer_of, decay=0.0, rate=0.01):
    torch.manual_seed(0)
    network = Mixed()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizer = optimizer_of(list(network.parameters()), lr=rate, weight_decay=decay)
    network(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    assert all(group["lr"] == rate for group in optimizer.param_groups)
    return before, dict(network.named_parameters()), optimizer


def test_matrices_move_orthogonally_and_all_others_as_with_adamw():
    before, after, optimizer = stepped(Muon)
    for name in ("conv.weight", "up.weight"):
        step = (before[name] - after[name]).detach().reshape(len(before[name]), -1)
        # The image has few directions: singular values of zero stay small.
        assert torch.linalg.svdvals(step / 0.01).max() == pytest.approx(1, abs=0.3)
    expected = stepped(torch.optim.AdamW, rate=0.001)[1]
    for name in set(after) - {"conv.weight", "up.weight"}:
        assert torch.allclose(after[name], expected[name], atol=1e-6), name
    assert {"momentum"} == set(optimizer.state[after["conv.weight"]])
    assert {"step", "exp_avg", "exp_avg_sq"} == set(optimizer.state[after["depthwise.weight"]])


def test_weights_decay_and_biases_and_scales_do_not():
    plain, decayed = stepped(Muon)[1], stepped(Muon, decay=0.5)[1]
    before = stepped(Muon)[0]
    for name in plain:
        shrunk = plain[name] - 0.001 * 0.5 * before[name] if before[name].ndim > 1 else plain[name]
        assert torch.allclose(decayed[name], shrunk, atol=1e-7), name


def test_a_rate_that_is_set_later_counts_for_all():
    torch.manual_seed(0)
    network = Mixed()
    optimizer = Muon(list(network.parameters()), lr=0.01, weight_decay=0.0)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    network(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())


def test_a_network_of_matrices_alone():
    layer = nn.Linear(16, 16, bias=False)
    optimizer = Muon(list(layer.parameters()), lr=0.01, weight_decay=0.0)
    layer(torch.randn(4, 16)).square().mean().backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, layer.weight)
