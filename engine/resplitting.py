"""The same patches split otherwise: a dataset whose patches stay where they are, and rules to split them by."""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import numpy.typing as npt

from ..tasks.context import Context
from ..tasks.errors import BadInput
from .datasets import LABELS, PATCHES, PatchDataset, write_description
from .outputfiles import writing_error
from .patchsplits import Numbers, too_near, within_groups
from .validationparts import balanced_groups
from .vectors import write_layer

TRAIN, TEST = "train", "test"
# Side of a block in patches, halved while there are less blocks than that.
_BLOCK_PATCHES, _FEWEST_BLOCKS = 10, 10
# Draws of groups that are tried until every class trains and tests.
_DRAWS = 20

Splits = npt.NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The patches of a dataset as they are to be split.

    Attributes:
        labels: class value of each patch ``(N,)``.
        rows: of the sample's pixel ``(N,)``.
        cols: likewise.
        groups: polygon that the sample came from ``(N,)``, -1 where unknown.
        size: pixels on a side of the largest patch that is cut there.
    """

    labels: Numbers
    rows: Numbers
    cols: Numbers
    groups: Numbers
    size: int

    @staticmethod
    def of(dataset: PatchDataset) -> Candidates:
        """Return those of a dataset.

        Raises:
            BadInput: it is not known where its patches lie.
        """
        if not dataset.description.scene.width:
            raise BadInput(
                f"It is not known where the patches of '{dataset.folder}' lie.",
                "Give a dataset of 'Extract patches': blocks and shared pixels need places.",
            )
        size = dataset.description.sources[0].patch_size
        return Candidates(dataset.labels, dataset.rows, dataset.cols, dataset.groups, size)

    def know_polygons(self) -> bool:
        """Tell whether every patch knows its polygon, and there are several."""
        return bool(np.all(self.groups >= 0)) and len(np.unique(self.groups)) > 1


def split_at_random(patches: Candidates, share: float, seed: int) -> Splits:
    """Split the patches of each class at random; ``share`` of them is the test part."""
    from fractions import Fraction

    test = Fraction(str(share)).limit_denominator(1000)
    parts = within_groups(patches.labels, (1 - test, Fraction(0), test), seed)
    return np.where(parts == 2, TEST, TRAIN).astype(object)


def split_by_polygons(patches: Candidates, share: float, seed: int, context: Context) -> Splits:
    """Give whole polygons to the test part, about ``share`` of the patches of each class."""
    return _best_draw(patches, patches.groups, share, seed, 0, context)


def split_by_blocks(patches: Candidates, share: float, seed: int, context: Context) -> Splits:
    """Give whole blocks to the test part; training patches that share a pixel with it are left out ("")."""
    return _best_draw(patches, blocks_of(patches, block_side(patches)), share, seed, patches.size, context)


def split_apart(patches: Candidates, share: float, seed: int, context: Context) -> Splits:
    """Give whole polygons, or blocks where these are not known, to the test part, and leave out what touches it."""
    groups = patches.groups if patches.know_polygons() else blocks_of(patches, block_side(patches))
    return _best_draw(patches, groups, share, seed, patches.size, context)


def blocks_of(patches: Candidates, side: int) -> Numbers:
    """Return the block of ``side`` pixels that holds each patch's pixel ``(N,)``."""
    across = int(patches.cols.max(initial=0)) // side + 1
    number = patches.rows // side * across + patches.cols // side
    return np.unique(number, return_inverse=True)[1].reshape(-1).astype(np.int64)


def block_side(patches: Candidates) -> int:
    """Return the side of blocks in pixels: ten patches, less where that gives too few blocks, or one of a class."""
    side = _BLOCK_PATCHES * max(patches.size, 2)
    while side // 2 >= 2 * patches.size:
        blocks = blocks_of(patches, side)
        scarcest = min(len(np.unique(blocks[patches.labels == value])) for value in np.unique(patches.labels))
        if scarcest > 1 and blocks.max(initial=0) + 1 >= _FEWEST_BLOCKS:
            break
        side //= 2
    return side


def _best_draw(
    patches: Candidates, groups: Numbers, share: float, seed: int, reach: int, context: Context
) -> Splits:  # fmt: skip
    """Return the first of some draws after which most classes have patches in both parts."""
    names, number = np.unique(groups, return_inverse=True)
    values, position = np.unique(patches.labels, return_inverse=True)
    table = np.zeros((len(names), len(values)), dtype=np.int64)
    np.add.at(table, (number.reshape(-1), position.reshape(-1)), 1)
    best, most = np.full(len(groups), "", dtype=object), -1
    for draw in range(_DRAWS):
        context.check()
        taken = balanced_groups(table, share, seed * _DRAWS + draw)[number.reshape(-1)]
        splits = np.where(taken, TEST, TRAIN).astype(object)
        if reach:
            parts = np.where(taken, 2, 0).astype(np.int8)
            splits[too_near(patches.rows, patches.cols, parts, (reach, reach), context)] = ""
        good = sum(bool(np.any(splits[position == n] == TEST) and np.any(splits[position == n] == TRAIN))
                   for n in range(len(values)))  # fmt: skip
        if good > most:
            best, most = splits, good
        if good == len(values):
            break
    return best


class Resplitter:
    """Makes datasets of the patches of another one; only the split is their own."""

    def __init__(self, dataset: PatchDataset) -> None:
        """Read what is the same in all of them."""
        self.dataset = dataset
        self._frame = geopandas.read_file(dataset.folder / PATCHES)

    @property
    def candidates(self) -> Numbers:
        """Return which sample each patch was cut at ``(N,)``: its position among all that were asked for."""
        numbers = self._frame["patch"].to_numpy()
        order = np.argsort(numbers, kind="stable")
        return np.asarray(order[numbers[order] >= 0], dtype=np.int64)

    def write(self, folder: str, splits: Splits, context: Context) -> str:
        """Write the folder of a dataset with other splits ``(N,)``; patches whose split is "" are in no part.

        It refers to the stack of patches of the first one, and is of use as long as that one is there.

        Raises:
            DiskFull: no room left.
            BadInput: the folder cannot be written.
        """
        description = self.dataset.description
        try:
            os.makedirs(folder)
            shutil.copyfile(self.dataset.folder / LABELS, Path(folder) / LABELS)
        except OSError as error:
            raise writing_error(folder, error) from error
        frame = self._frame.copy()
        texts = np.full(len(frame), "", dtype=object)
        texts[self.candidates] = splits
        frame["split"] = texts
        write_layer(frame, os.path.join(folder, PATCHES), "Polygon", frame.crs, context)
        sources = tuple(
            dataclasses.replace(source, file=str((self.dataset.folder / source.file).resolve()))
            for source in description.sources
        )
        write_description(folder, dataclasses.replace(description, sources=sources))
        return folder
