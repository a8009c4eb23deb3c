"""Opening what a network of one class per pixel learns from: dense patch datasets, or a raster and its labels."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Iterator

from ..tasks.context import Context
from ..tasks.jobs import TrainSegmenter
from .denseparts import DenseRoles, kept
from .densepatches import patch_roles
from .densewindows import window_roles


@contextlib.contextmanager
def open_dense_roles(job: TrainSegmenter, context: Context) -> Iterator[DenseRoles]:
    """Open the data of a job and give every window its role; files stay open inside the ``with`` block.

    Raises:
        BadInput: the data cannot be used.
    """
    if job.source is None:
        roles = patch_roles(job, context)
        training = kept(roles.training, roles.source) or roles.training
        yield replace(roles, training=training, validation=kept(roles.validation, roles.source))
        return
    with window_roles(job, context) as roles:
        yield replace(roles, validation=kept(roles.validation, roles.source))
