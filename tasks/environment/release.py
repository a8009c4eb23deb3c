"""What this release of the engine is made of: the pins of torch, uv, Python and the extras, and the folders' keys."""

from __future__ import annotations

import functools
import hashlib
import platform
import sys
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

TORCH = "2.13.0"
LOCK = Path(__file__).with_name("engine.lock")

PYTHON_OLDEST = (3, 10)
PYTHON_NEWEST = (3, 13)
PYTHON_MANAGED = "3.12"  # what uv provides where QGIS's own Python is outside this range (Windows up to QGIS 3.34: 3.9)

# Room for the environment and uv's cache together while it is built, rounded up.
NEEDED_GB = {"cpu": 3, "cuda": 14}
TORCH_DOWNLOAD = {"cpu": "200 MB", "cuda": "3 GB"}


class Extra(NamedTuple):
    """Packages beside the engine's own, for those who ask for them.

    Attributes:
        title: what the user knows it by.
        package: the one whose version is told.
        lock: the packages to add, pinned with their hashes, without those that the engine has already.
        needed_gb: room for them and uv's cache together.
    """

    title: str
    package: str
    lock: Path
    needed_gb: float


# Value of EXTRAS -> what it is.
EXTRAS = {"openvino": Extra("OpenVINO", "openvino", Path(__file__).with_name("openvino.lock"), 0.4)}

UV = "0.13.8"
UV_OLDEST = (0, 7)  # older ones lack --torch-backend


class UvWheel(NamedTuple):
    """One platform's wheel of uv on a package index, with its digest."""

    file: str
    digest: str


_UV_WHEELS = {
    ("Linux", "x86_64"): UvWheel(
        f"uv-{UV}-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "sha256:e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
    ),
    ("Linux", "aarch64"): UvWheel(
        f"uv-{UV}-py3-none-manylinux_2_28_aarch64.whl",
        "sha256:5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203",
    ),
    ("Darwin", "arm64"): UvWheel(
        f"uv-{UV}-py3-none-macosx_11_0_arm64.whl",
        "sha256:62b6943c7fd64fac6854f780bea6e0359e5a5bc3241f83ee357bb38276afac49",
    ),
    ("Darwin", "x86_64"): UvWheel(
        f"uv-{UV}-py3-none-macosx_10_12_x86_64.whl",
        "sha256:b7124ca1956ec2e476a1003ea5715a15f0266afaec37f4dc9c6972ba8183e6d1",
    ),
    ("Windows", "AMD64"): UvWheel(
        f"uv-{UV}-py3-none-win_amd64.whl",
        "sha256:cfbc13020a64cdf2f116d2936824c38edbf41e5c07f1ea291baf02e31ebf3ed0",
    ),
    ("Windows", "ARM64"): UvWheel(
        f"uv-{UV}-py3-none-win_arm64.whl",
        "sha256:b4184029b1b7c54409b9cd4372c73a36ef9c2d1d7cf3b0aca59c8b1932f041dc",
    ),
}


def uv_wheel() -> Optional[UvWheel]:
    """Return this platform's wheel of uv; None where there is none."""
    return _UV_WHEELS.get((platform.system(), platform.machine()))


@functools.cache
def release_digest(lock: Path = LOCK) -> str:
    """Return the first part of an environment's key: the hash of the lock and of torch's version.

    It changes only when a package does, so that a patch release of the plugin downloads nothing.
    """
    return _digest(f"torch=={TORCH}\n{_packages_of(lock)}")


@functools.cache
def extra_key(name: str) -> str:
    """Return the name of an extra's folder: the packages of another release go into another one."""
    return f"{name}-{_digest(_packages_of(EXTRAS[name].lock))}"


def _packages_of(lock: Path) -> str:
    # A checkout on Windows may turn line ends round: the same packages keep the same key.
    return lock.read_text(encoding="utf-8").replace("\r\n", "\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def environment_key(python: Tuple[int, int], build: str) -> str:
    """Return the name of the folder for this release, Python version and build of torch (``cpu`` or ``cuda``)."""
    return f"{release_digest()}-py{python[0]}{python[1]}-{build}"


def index_build() -> str:
    """Return which build of torch a plain package index holds: the one for CUDA on Linux, else the one for CPUs."""
    return "cuda" if sys.platform.startswith("linux") and platform.machine() == "x86_64" else "cpu"
