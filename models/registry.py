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
            batch_size, weight_decay, label_smoothing, warm_up, jitter, brightness); of pixel networks those of
            `models.recipes.Preset` (optimizer, learning_rate, batch_size, weight_decay, averaging), which the recipe
            "default" takes from here.
        source: paper or programme that the network comes from.
        rim: of pixel networks: pixels on each side of a training window that do not count in training, because the
            reference keeps its middle alone (the rest sees the zeros beside the window).
        smallest_batch: windows that a training step must have; 2 where a normalisation follows a mean over the window.
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
    rim: int = 0
    smallest_batch: int = 1


# What the constructor arguments mean, for the help of all networks that have them.
ARGUMENT_HELP: Dict[str, str] = {
    "width": "Channels of the first layer, at full resolution.",
    "depth": "Poolings: how often the resolution is halved.",
    "upsampling": "transposed (learned) or nearest (each value four times).",
    "encoder": (
        "A name of segmentation-models-pytorch (resnet18, resnet34, mobilenet_v2, efficientnet-b0, mit_b0, ...) or of "
        "timm."
    ),
    "full_resolution": (
        "Whether the encoder keeps the image's resolution at its beginning: for things of few pixels; about four times "
        "the work."
    ),
    "pretrained": "Start from an encoder that was trained on photographs, where this machine can fetch its weights.",
    "drop_path": (
        "Chance that the encoder's last residual block is left out of a training step, in encoders of timm; smaller "
        "for the blocks before it."
    ),
    "dropout": "Share of the features that are left out in training.",
    "residual_dropout": "Share of the corrections that are left out in training.",
    "ridge": "Regularisation of the linear rule that training starts from.",
}

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
            "resolution. Width 16: 1.9 million parameters, 32: 7.8 million, 64 (the paper's): 31 million. Depth 4 "
            "reads 107 pixels on each side. A good default."
        ),
        target="models.unet:UNet",
        smallest_patch=32,
        arguments={"width": 32, "depth": 4, "upsampling": "transposed"},
        recipe={"optimizer": "muon", "learning_rate": 2e-2, "weight_decay": 1e-2},
        source="O. Ronneberger, P. Fischer, T. Brox, U-Net (2015)",
        output="pixels",
    ),
    NetworkEntry(
        id="course_unet",
        title="U-Net of the course (VGG16)",
        help=(
            "The U-Net of the course on Vaihingen: the convolutions of VGG16 as encoder, 23.7 million parameters. For "
            "GPUs: slow on a CPU."
        ),
        target="models.course_unet:CourseUNet",
        smallest_patch=64,
        arguments={"pretrained": True},
        recipe={"learning_rate": 1e-4, "weight_decay": 0.0, "batch_size": 8},
        source="O. Ronneberger, P. Fischer, T. Brox, U-Net (2015); K. Simonyan, A. Zisserman, VGG (2014)",
        output="pixels",
    ),
    NetworkEntry(
        id="segnet",
        title="SegNet",
        help=(
            "An encoder like VGG16 and its mirror image, which puts values back where the poolings took them from; "
            "29.4 million parameters. For GPUs: slow on a CPU."
        ),
        target="models.segnet:SegNet",
        smallest_patch=64,
        arguments={"pretrained": True},
        recipe={"learning_rate": 1e-3, "weight_decay": 5e-4, "batch_size": 8},
        source="V. Badrinarayanan, A. Kendall, R. Cipolla, SegNet (2017)",
        output="pixels",
    ),
    NetworkEntry(
        id="reference_fcnn",
        title="U-Net-like FCNN (reference)",
        help=(
            "The small U-Net of the reference's book: four strided convolutions and four transposed ones, 0.12 million "
            "parameters, quick. 16 pixels at the rim of training windows do not count."
        ),
        target="models.reference_fcnn:UNetLikeFCNN",
        smallest_patch=64,
        recipe={"learning_rate": 2e-4, "weight_decay": 0.0, "batch_size": 32},
        source="R. Cresson, Deep Learning for Remote Sensing Images with Open Source Software (2020)",
        output="pixels",
        rim=16,
    ),
    NetworkEntry(
        id="maggiori_fcn",
        title="Maggiori's FCN (reference, for binary maps)",
        help=(
            "Large convolutions at a quarter of the resolution, made for building footprints; 0.44 million parameters. "
            "32 pixels at the rim of training windows do not count."
        ),
        target="models.reference_fcnn:MaggioriFCN",
        smallest_patch=80,
        recipe={"learning_rate": 2e-4, "weight_decay": 0.0, "batch_size": 32},
        source="E. Maggiori et al., Convolutional Neural Networks for Large-Scale Remote-Sensing Classification (2017)",
        output="pixels",
        rim=32,
    ),
    NetworkEntry(
        id="smp_unet",
        title="U-Net with an encoder (smp)",
        help=(
            "A U-Net on an encoder of your choice, which may start from weights learned from photographs; 14.3 million "
            "parameters with resnet18. The best choice where few pixels are labelled and pretrained weights can be had."
        ),
        target="models.smp:SmpUnet",
        smallest_patch=64,
        arguments={"encoder": "resnet18", "pretrained": True, "full_resolution": False, "drop_path": 0.2},
        recipe={"learning_rate": 1e-3, "weight_decay": 1e-2, "averaging": 0.25},
        source="P. Iakubovskii, Segmentation Models Pytorch (2019)",
        output="pixels",
    ),
    NetworkEntry(
        id="smp_unetplusplus",
        title="U-Net++ with an encoder (smp)",
        help="A U-Net with more paths between encoder and decoder, slower; 16 million parameters with resnet18.",
        target="models.smp:SmpUnetPlusPlus",
        smallest_patch=64,
        arguments={"encoder": "resnet18", "pretrained": True},
        recipe={"learning_rate": 3e-4, "weight_decay": 1e-2, "batch_size": 8},
        source="Z. Zhou et al., UNet++ (2018)",
        output="pixels",
    ),
    NetworkEntry(
        id="smp_deeplabv3plus",
        title="DeepLabV3+ with an encoder (smp)",
        help=(
            "Dilated convolutions of several reaches, and the mean over the image; 12.3 million parameters with "
            "resnet18. Maps in tiles that are faded into each "
            "other."
        ),
        target="models.smp:SmpDeepLabV3Plus",
        smallest_patch=64,
        arguments={"encoder": "resnet18", "pretrained": True},
        recipe={"learning_rate": 3e-4, "weight_decay": 1e-2, "batch_size": 8},
        source="L.-C. Chen et al., DeepLabV3+ (2018)",
        output="pixels",
        smallest_batch=2,
    ),
    NetworkEntry(
        id="smp_fpn",
        title="FPN with an encoder (smp)",
        help=(
            "A feature pyramid, quick; 13 million parameters with resnet18. Maps in tiles that are faded into each "
            "other."
        ),
        target="models.smp:SmpFPN",
        smallest_patch=64,
        arguments={"encoder": "resnet18", "pretrained": True},
        recipe={"learning_rate": 3e-4, "weight_decay": 1e-2, "batch_size": 8},
        source="T.-Y. Lin et al., Feature Pyramid Networks (2017)",
        output="pixels",
    ),
    NetworkEntry(
        id="smp_segformer",
        title="SegFormer (smp)",
        help=(
            "A transformer with a light decoder; 3.7 million parameters with mit_b0. Maps in tiles that are faded into "
            "each other; with resnet18 as encoder it does not need them."
        ),
        target="models.smp:SmpSegformer",
        smallest_patch=64,
        arguments={"encoder": "mit_b0", "pretrained": True},
        recipe={"learning_rate": 3e-4, "weight_decay": 1e-2, "batch_size": 8},
        source="E. Xie et al., SegFormer (2021)",
        output="pixels",
    ),
    NetworkEntry(
        id="smp_upernet",
        title="UPerNet with an encoder (smp)",
        help=("A feature pyramid with means over parts of the image. Maps in tiles that are faded into each other."),
        target="models.smp:SmpUPerNet",
        smallest_patch=64,
        arguments={"encoder": "resnet18", "pretrained": True},
        recipe={"learning_rate": 3e-4, "weight_decay": 1e-2, "batch_size": 8},
        source="T. Xiao et al., UPerNet (2018)",
        output="pixels",
        smallest_batch=2,
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
