"""Who may import what: QGIS never imports torch, and the engine never imports QGIS."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch", "rasterio", "geopandas", "numpy", "pandas", "sklearn", "lightning", "lightning_fabric", "pyogrio",
    "shapely", "pyproj", "scipy", "onnx", "onnxruntime", "onnxscript", "openvino", "safetensors", "affine",
}  # fmt: skip


def imported(path):
    """Return (top-level name, line) of every absolute import, and the package folder of every relative one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = path.parent
            for _ in range(node.level - 1):
                base = base.parent
            target = base.joinpath(*(node.module or "").split("."))
            parts = target.relative_to(ROOT).parts
            yield (f"./{parts[0]}" if parts else "./", node.lineno)


def files(*folders):
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return found


def offenders(paths, forbidden):
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line in imported(path)
        if forbidden(name)
    ]


def test_the_engine_never_imports_qgis():
    assert offenders(files("engine", "models"), lambda name: name in {"qgis", "PyQt5", "PyQt6", "processing"}) == []


def test_the_engine_never_imports_the_qgis_side():
    assert offenders(files("engine", "models", "tasks"), lambda name: name in {"./algorithms", "./ui"}) == []


def test_the_qgis_side_never_imports_the_engine():
    assert offenders(files("algorithms", "ui"), lambda name: name in HEAVY or name == "./engine") == []


def test_the_seam_is_standard_library():
    paths = [path for path in files("tasks") if path.name not in {"manager.py", "probe.py"}]
    paths += [ROOT / "models" / "registry.py", ROOT / "models" / "cards.py"]
    allowed = sys.stdlib_module_names | {"./tasks", "./models", "deepscape"}
    assert offenders(paths, lambda name: name not in allowed and name != "__future__") == []


def test_only_qgis_s_own_pyqt():
    paths = [*files("algorithms", "ui", "tasks"), ROOT / "plugin.py"]
    assert offenders(paths, lambda name: name in {"PyQt5", "PyQt6"}) == []


@pytest.mark.parametrize("folder", ["algorithms", "ui", "tasks", "engine", "models"])
def test_version_switches_live_in_compat(folder):
    found = [path.name for path in files(folder) if "QGIS_VERSION_INT" in path.read_text(encoding="utf-8")]
    assert set(found) <= {"compat.py"}
