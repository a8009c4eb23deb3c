"""The list of networks."""

import pytest
from deepscape.models.registry import PATCH_NETWORKS, network_entry
from deepscape.tasks.errors import BadInput


def test_ids_are_published_and_unique():
    assert [entry.id for entry in PATCH_NETWORKS] == ["compact_cnn", "simple_cnn", "pixel_network"]


def test_every_network_explains_itself():
    for entry in PATCH_NETWORKS:
        assert entry.title and entry.help and entry.source
        assert network_entry(entry.id) is entry


def test_an_unknown_network_lists_the_valid_ones():
    with pytest.raises(BadInput, match=r"no network 'resnet'.*compact_cnn, simple_cnn, pixel_network"):
        network_entry("resnet")
