"""The networks that Deepscape offers. Standard library only: the algorithms' lists and help read it without torch.

To add a network: one file (or class) in models/ and its entry here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Tuple

from ..tasks.errors import BadInput


@dataclass(frozen=True)
class NetworkEntry:
    """One network of the registry.

    Attributes:
        id: published name (NETWORK).
        title: what lists show.
        help: one or two sentences for the user.
        target: ``module:class`` below the package. A patch network is called as ``cls(bands, classes, patch_size,
            **arguments)``, its forward maps ``(N, bands, patch_size, patch_size)`` to logits ``(N, classes)``; a
            pixel network as ``cls(bands, classes, **arguments)``, ``(N, bands, H, W)`` to ``(N, classes, H, W)``.
        smallest_patch: smallest patch size in pixels that the network accepts.
        output: patch (one class per patch) or pixels (one class per pixel).
        arguments: the further constructor arguments and their defaults.
        recipe: the training settings that suit the network, fields of `engine.trainingbatches.Recipe` (learning_rate,
            batch_size, weight_decay, label_smoothing, warm_up, jitter, brightness).
        source: paper or programme that the network comes from.
    """

    id: str
    title: str
    help: str
    target: str
    smallest_patch: int
    arguments: Dict[str, Any] = field(default_factory=dict)
    recipe: Dict[str, Any] = field(default_factory=dict)
    source: str = ""
    output: str = "patch"


PATCH_NETWORKS: Tuple[NetworkEntry, ...] = (
    NetworkEntry(
        id="compact_cnn",
        title="Compact CNN",
        help=(
            "A modern small network for patches of 5 pixels and more, odd or even: a rule on the spectrum, and "
            "convolutions with batch normalisation and dropout that correct it by the neighbourhood. A good default."
        ),
        target="models.compact_cnn:CompactCNN",
        smallest_patch=5,
        arguments={"width": 32, "dropout": 0.5, "residual_dropout": 0.5, "ridge": 1e-3},
        recipe={
            "learning_rate": 1e-3,
            "weight_decay": 1e-2,
            "batch_size": 64,
            "label_smoothing": 0.0,
            "warm_up": 0.3,
            "jitter": 0.2,
            "brightness": 0.2,
        },
        source="Deepscape",
    ),
    NetworkEntry(
        id="simple_cnn",
        title="Simple CNN (reference, patches of 16)",
        help=(
            "The reference network of the OTBTF tutorial: three convolutions without normalisation. Patches of 16 "
            "pixels as in the tutorial, or larger."
        ),
        target="models.simple_cnn:SimpleCNN",
        smallest_patch=16,
        # The tutorial's settings: Adam with a constant rate, batches of 100.
        recipe={"learning_rate": 2e-4, "weight_decay": 0.0, "batch_size": 100, "warm_up": 0.0},
        source="R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software (2020)",
    ),
    NetworkEntry(
        id="pixel_network",
        title="Pixel network (1 x 1, no context)",
        help=(
            "The same idea without any neighbourhood: only the centre pixel's spectrum. Train it beside another "
            "network to learn what context adds."
        ),
        target="models.pixel_network:PixelNetwork",
        smallest_patch=1,
        arguments={"width": 64, "dropout": 0.2},
        recipe={"learning_rate": 3e-3, "weight_decay": 1e-2, "batch_size": 32, "warm_up": 0.3, "jitter": 0.2},
        source="Deepscape",
    ),
    NetworkEntry(
        id="simple_fcn",
        title="Simple FCN (reference, patches of 16)",
        help=(
            "Four convolutions without pooling: the reference's first fully convolutional network. Patches of 16 "
            "pixels, or larger. Six times as many weights as the Simple CNN."
        ),
        target="models.simple_fcn:SimpleFCN",
        smallest_patch=16,
        recipe={"learning_rate": 2e-4, "weight_decay": 0.0, "batch_size": 100, "warm_up": 0.0},
        source="R. Cresson, A framework for remote sensing images processing using deep learning (2018)",
    ),
    NetworkEntry(
        id="book_fcn",
        title="FCN of the book (reference, patches of 16)",
        help=("Seven small convolutions without pooling, as in the reference's book. Patches of 16 pixels, or larger."),
        target="models.simple_fcn:BookFCN",
        smallest_patch=16,
        recipe={"learning_rate": 2e-4, "weight_decay": 0.0, "batch_size": 100, "warm_up": 0.0},
        source="R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software (2020)",
    ),
)

PIXEL_NETWORKS: Tuple[NetworkEntry, ...] = (
    NetworkEntry(
        id="unet",
        title="U-Net",
        help=(
            "The classic network for one class per pixel: an encoder and a decoder of any depth, joined at every "
            "resolution. Depth 4 reads 107 pixels on each side."
        ),
        target="models.unet:UNet",
        smallest_patch=32,
        arguments={"width": 32, "depth": 4, "upsampling": "transposed"},
        source="O. Ronneberger, P. Fischer, T. Brox, U-Net (2015)",
        output="pixels",
    ),
)


def network_entry(network: str, family: Tuple[NetworkEntry, ...] = PATCH_NETWORKS + PIXEL_NETWORKS) -> NetworkEntry:
    """Return the entry of a network.

    Args:
        network: its id.
        family: where it is looked for; all networks, or `PATCH_NETWORKS` or `PIXEL_NETWORKS` alone.

    Raises:
        BadInput: there is no such network; lists the valid ones.
    """
    for entry in family:
        if entry.id == network:
            return entry
    valid = ", ".join(entry.id for entry in family)
    raise BadInput(f"There is no network '{network}'.", f"Valid networks: {valid}.")
