"""The list of networks."""

import pytest
from deepscape.models.registry import PATCH_NETWORKS, PIXEL_NETWORKS, network_entry
from deepscape.tasks.errors import BadInput


def test_ids_are_published_and_unique():
    assert [entry.id for entry in PATCH_NETWORKS] == [
        "compact_cnn",
        "simple_cnn",
        "pixel_network",
        "simple_fcn",
        "book_fcn",
    ]
    assert [entry.id for entry in PIXEL_NETWORKS] == [
        "unet",
        "course_unet",
        "segnet",
        "reference_fcnn",
        "maggiori_fcn",
        "smp_unet",
        "smp_unetplusplus",
        "smp_deeplabv3plus",
        "smp_fpn",
        "smp_segformer",
        "smp_upernet",
    ]
    assert {entry.output for entry in PATCH_NETWORKS} == {"patch"}
    assert {entry.output for entry in PIXEL_NETWORKS} == {"pixels"}


def test_every_network_explains_itself():
    for entry in PATCH_NETWORKS + PIXEL_NETWORKS:
        assert entry.title and entry.help and entry.source
        assert network_entry(entry.id) is entry


def test_an_unknown_network_lists_the_valid_ones():
    with pytest.raises(BadInput, match=r"no network 'resnet'.*compact_cnn, simple_cnn, pixel_network, .*unet"):
        network_entry("resnet")


def test_a_network_of_the_other_family_is_not_offered():
    with pytest.raises(BadInput, match=r"no network 'unet'. Valid networks: compact_cnn, .*, book_fcn\."):
        network_entry("unet", PATCH_NETWORKS)
