"""Tests marked otb run where the Orfeo ToolBox is installed, as `make test` does on Debian and in CI."""

import shutil


def pytest_collection_modifyitems(config, items):
    if shutil.which("otbcli") is None:
        beside = [item for item in items if item.get_closest_marker("otb")]
        config.hook.pytest_deselected(items=beside)
        items[:] = [item for item in items if item not in beside]
