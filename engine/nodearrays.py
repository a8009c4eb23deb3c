"""Random Forests as plain node arrays, applied with numpy alone.

No pickle: the arrays travel in the same ``.safetensors`` with the same card as a network's weights. Mapping imports
this module, so it must not need scikit-learn; training is in forest.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional

import numpy as np
import numpy.typing as npt

from ..tasks.errors import BadInput

Array = npt.NDArray[Any]

ROWS_AT_ONCE = 16384  # samples that walk down the trees together; bounds the memory and the time between checks


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a forest, their nodes one after the other.

    Attributes:
        offsets: first node of each tree and the number of nodes, int64 ``(T + 1,)``.
        feature: feature that a node compares, int32 ``(M,)``; -1 at a leaf.
        threshold: a sample goes left where its value is at most this, float64 ``(M,)``.
        children: left and right child as nodes of the same tree, int32 ``(M, 2)``; at a leaf the left one is the row
            of `probabilities`.
        probabilities: class shares of each leaf, float64 ``(L, C)``.
    """

    offsets: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    children: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float64]

    @property
    def tree_count(self) -> int:
        """Return the number of trees."""
        return len(self.offsets) - 1

    def predict_proba(self, features: Array, check: Optional[Callable[[], None]] = None) -> npt.NDArray[np.float64]:
        """Return the mean of the trees' class shares.

        Args:
            features: float32 ``(N, F)``, no NaN.
            check: called between steps; may raise to stop (`Context.check`).

        Returns:
            float64 ``(N, C)``, each row adding up to 1.
        """
        rows = np.ascontiguousarray(features, dtype=np.float32)
        result = np.zeros((len(rows), self.probabilities.shape[1]))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            for tree in range(self.tree_count):
                if check is not None:
                    check()
                result[start : start + len(part)] += self.probabilities[self._leaves(part, tree)]
        result /= self.tree_count
        return result

    def _leaves(self, rows: npt.NDArray[np.float32], tree: int) -> npt.NDArray[np.int64]:
        """Return the row of `probabilities` that each sample ends at in one tree."""
        nodes = slice(int(self.offsets[tree]), int(self.offsets[tree + 1]))
        feature, threshold = self.feature[nodes], self.threshold[nodes]
        children = self.children[nodes].reshape(-1)
        leaves = np.empty(len(rows), dtype=np.int64)
        active = np.arange(len(rows))
        node = np.zeros(len(rows), dtype=np.int64)
        while len(active):
            wanted = feature.take(node)
            ended = wanted < 0
            if ended.any():
                leaves[active[ended]] = children.take(2 * node[ended])
                going = ~ended
                active, node, wanted = active[going], node[going], wanted[going]
            values = rows.reshape(-1).take(active * rows.shape[1] + wanted)
            node = children.take(2 * node + (values > threshold.take(node))).astype(np.int64)
        return leaves

    def tensors(self) -> Dict[str, Array]:
        """Return the arrays by name, as they are saved."""
        return {
            "offsets": self.offsets,
            "feature": self.feature,
            "threshold": self.threshold,
            "children": self.children,
            "probabilities": self.probabilities,
        }


_ARRAYS = {
    "offsets": (np.int64, 1),
    "feature": (np.int32, 1),
    "threshold": (np.float64, 1),
    "children": (np.int32, 2),
    "probabilities": (np.float64, 2),
}


def forest_from_tensors(tensors: Mapping[str, Array], features: int, classes: int) -> Forest:
    """Build a forest from saved arrays, so checked that applying it can neither fail nor go round in circles.

    Raises:
        BadInput: an array is missing, has another form, or points outside the forest.
    """
    remedy = "Train the model again, or copy the file again from its source."
    for name, (dtype, axes) in _ARRAYS.items():
        array = tensors.get(name)
        if array is None or array.dtype != dtype or array.ndim != axes:
            raise BadInput(f"The forest's array '{name}' is missing or has another form.", remedy)
    forest = Forest(**{name: tensors[name] for name in _ARRAYS})
    if not _is_sound(forest, features, classes):
        raise BadInput("The forest's node arrays contradict each other or the model card.", remedy)
    return forest


def _is_sound(forest: Forest, features: int, classes: int) -> bool:
    count = len(forest.feature)
    lengths_fit = forest.threshold.shape == (count,) and forest.children.shape == (count, 2)
    offsets = forest.offsets
    if not lengths_fit or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != count or np.any(np.diff(offsets) < 1):
        return False
    if forest.probabilities.shape[1] != classes or np.any(forest.feature >= features) or np.any(forest.feature < -1):
        return False
    sizes = np.diff(offsets)
    place = np.arange(count) - np.repeat(offsets[:-1], sizes)
    inner, leaf = forest.feature >= 0, forest.feature < 0
    # A child always stands behind its parent: no circle is possible.
    children_fit = np.all(forest.children[inner] > place[inner, None]) and np.all(
        forest.children[inner] < np.repeat(sizes, sizes)[inner, None]
    )
    leaves = forest.children[leaf, 0]
    return bool(children_fit and np.all(leaves >= 0) and np.all(leaves < len(forest.probabilities)))


def forest_from_sklearn(model: Any, positions: Array, classes: int) -> Forest:
    """Take the node arrays out of a fitted scikit-learn RandomForestClassifier.

    Args:
        model: the fitted forest.
        positions: position in the class table of each of the model's own classes.
        classes: length of the class table; classes that the model never saw get the share 0.
    """
    feature: List[Array] = []
    threshold: List[Array] = []
    children: List[Array] = []
    probabilities: List[Array] = []
    offsets, leaf_count = [0], 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        is_leaf = tree.children_left == -1
        pairs = np.stack([tree.children_left, tree.children_right], axis=1).astype(np.int32)
        pairs[is_leaf] = 0
        pairs[is_leaf, 0] = leaf_count + np.arange(np.count_nonzero(is_leaf))
        leaf_count += int(np.count_nonzero(is_leaf))
        values = tree.value[is_leaf, 0, :]
        shares = np.zeros((len(values), classes))
        shares[:, positions] = values / values.sum(axis=1, keepdims=True)
        children.append(pairs)
        feature.append(np.where(is_leaf, -1, tree.feature).astype(np.int32))
        threshold.append(np.where(is_leaf, 0.0, tree.threshold))
        probabilities.append(shares)
        offsets.append(offsets[-1] + tree.node_count)
    return Forest(
        offsets=np.array(offsets, dtype=np.int64),
        feature=np.concatenate(feature),
        threshold=np.concatenate(threshold).astype(np.float64),
        children=np.concatenate(children),
        probabilities=np.concatenate(probabilities).astype(np.float64),
    )
