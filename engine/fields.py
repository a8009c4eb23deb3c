"""What was found of a network's field of view, kept: probing a deep architecture takes a while.

A kept answer holds for one architecture, number of bands, source code of the networks and version of the libraries that
they come from. It is that of a network with random weights: learned ones could hide, by chance, that a pixel matters.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Optional

import torch

from ..models.build import build_network
from ..models.cards import Card
from ..tasks.environment.places import cache_dir, made
from ..tasks.errors import EngineSetupFailed
from .outputfiles import part_name
from .probing import Field, probe

_LIBRARIES = ("torch", "timm", "segmentation_models_pytorch")


def field_of(card: Card, check: Optional[Callable[[], None]] = None) -> Field:
    """Return how far the network of a card looks, and on which grid; see `probing.probe`.

    Args:
        card: with network, arguments, bands, classes and whether it is binary.
        check: called between evaluations, so that a job can be cancelled.
    """
    file = _file(card)
    kept = _read(file)
    if kept is not None:
        return kept
    bands = len(card.sources[0].bands)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(
            card.network, bands, len(card.classes), card.sources[0].patch_size, card.arguments, card.binary
        )
    found = probe(network, bands, check)
    _write(file, found)
    return found


def _file(card: Card) -> Optional[Path]:
    """Return the file of an answer; None where none can be kept."""
    asked = [card.network, dict(card.arguments), len(card.sources[0].bands), len(card.classes), card.binary]
    text = json.dumps([asked, _code(), *(_version(name) for name in _LIBRARIES)], sort_keys=True)
    try:
        folder = made(cache_dir() / "fields")
    except EngineSetupFailed:
        return None
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@functools.cache
def _code() -> str:
    """Return a hash of the sources of the networks and of probing."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted((here.parent / "models").glob("*.py")), here / "probing.py"):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read(file: Optional[Path]) -> Optional[Field]:
    """Return a kept answer; None where there is none, or it is damaged."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8")) if file else {}
        found = Field(int(plain["margin"]), int(plain["stride"]), str(plain["context"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    whole = found.stride >= 1 and found.margin >= 0 and found.margin % found.stride == 0
    return found if whole and found.context in ("local", "tile") else None


def _write(file: Optional[Path], found: Field) -> None:
    """Keep an answer, where the folder takes it."""
    if file is None:
        return
    part = Path(part_name(str(file)))
    try:
        part.write_text(json.dumps(asdict(found)), encoding="utf-8")
        os.replace(part, file)
    except OSError:
        part.unlink(missing_ok=True)
