"""What the demo measures beside the plugin's own algorithms; runs in the engine's environment.

``logistic TRAINING TEST SEED`` prints the accuracy of a logistic regression on the standardised centre pixels, and
``maps SCENE MAP...`` how far maps disagree with each other and with the spectral water mask at its edge. The answer is
one line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
WATER = 3
# Reflectance under which B8 and B11 are water; the scene's values carry the +0.1 offset of newer products.
WATER_LIMIT = 0.16
EDGE_PX = 4


def _load_package() -> None:
    """Load the plugin root as the package ``deepscape``, whatever the checkout is called."""
    spec = importlib.util.spec_from_file_location(
        "deepscape", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["deepscape"] = module
    spec.loader.exec_module(module)


def centre_pixels(folder: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the centre pixels ``(N, C)`` in physical units and the class values ``(N,)`` of a patch dataset."""
    from deepscape.engine.datasets import PatchDataset

    dataset = PatchDataset(folder)
    centre = dataset.description.sources[0].patch_size // 2
    return dataset.physical(dataset.patches()[:, :, centre : centre + 1, centre : centre + 1])[
        ..., 0, 0
    ], dataset.labels


def logistic(training: str, test: str, seed: int) -> Dict[str, Any]:
    """Fit on one patch dataset, score on another."""
    from deepscape.engine.metrics import confusion_matrix, scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = centre_pixels(training)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced", random_state=seed)
    ).fit(features, labels)
    features, labels = centre_pixels(test)
    classes = np.unique(np.concatenate([model.classes_, labels]))
    matrix = confusion_matrix(
        np.searchsorted(classes, labels), np.searchsorted(classes, model.predict(features)), len(classes)
    )
    found = scores(matrix)
    return {
        "overall_accuracy": found.overall_accuracy,
        "kappa": found.kappa,
        "f1": {str(value): float(f1) for value, f1 in zip(classes, found.f1)},
    }


def compare_maps(scene: str, maps: List[str]) -> Dict[str, Any]:
    """Return the share of pixels on which the maps disagree, and each map's error at the water's edge.

    The edge zone holds the pixels within `EDGE_PX` pixels of the spectral mask's edge, on both sides; the error is the
    share of them where "the map says water" and the mask differ.
    """
    import rasterio
    from scipy.ndimage import distance_transform_edt

    with rasterio.open(scene) as raster:
        near_infrared, shortwave = raster.read([raster.descriptions.index(name) + 1 for name in ("B8", "B11")])
    water = (near_infrared < WATER_LIMIT) & (shortwave < WATER_LIMIT)
    zone = np.where(water, distance_transform_edt(water), distance_transform_edt(~water)) <= EDGE_PX
    classes = []
    for path in maps:
        with rasterio.open(path) as raster:
            classes.append(raster.read(1))
    stack = np.stack(classes)
    return {
        "disagreement": float((stack != stack[0]).any(axis=0).mean()),
        "edge_error": [float(((one == WATER) != water)[zone].mean()) for one in stack],
        "edge_pixels": int(zone.sum()),
    }


def main(arguments: List[str]) -> None:
    """Run one of the two measurements."""
    _load_package()
    if arguments[0] == "logistic":
        answer = logistic(arguments[1], arguments[2], int(arguments[3]))
    else:
        answer = compare_maps(arguments[1], arguments[2:])
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
