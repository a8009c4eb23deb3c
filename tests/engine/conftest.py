"""Tests marked otb run where the Orfeo ToolBox is installed, as `make test` does on Debian and in CI."""

import shutil

import pytest


def pytest_collection_modifyitems(config, items):
    if shutil.which("otbcli") is None:
        beside = [item for item in items if item.get_closest_marker("otb")]
        config.hook.pytest_deselected(items=beside)
        items[:] = [item for item in items if item not in beside]


@pytest.fixture(autouse=True)
def graphs_after_training(monkeypatch):
    """Let no training end with the export of graphs: that takes seconds, and is tested by itself (test_graphs.py)."""
    monkeypatch.setattr("deepscape.engine.graphs.export_graphs", lambda module, card, model_path, context: None)
