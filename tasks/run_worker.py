"""The script that the engine's Python runs: the worker of QGIS, or ``run FILE.job.json`` by hand.

``python run_worker.py`` speaks the protocol on its standard input and output and is started by QGIS;
``python run_worker.py run FILE.job.json ...`` repeats saved jobs (see tasks/cli.py). A job starts it itself, as
``run_worker.py trial FOLDER``, to time a runtime.

It loads the plugin's root as the package ``deepscape`` whatever the folder is called and leaves sys.path alone: with
the plugin's folder on it, ``models``, ``tests`` and ``jobs`` would be top-level names that shadow other packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Tuple


def take_channel() -> Tuple[int, int]:
    """Keep the protocol's two descriptors for ourselves; returns (input, output).

    Descriptor 1 then leads to the log (2) and 0 to nothing, so that no library's print, in Python or in C, can break
    the channel, and no child process inherits it (``os.dup`` gives descriptors that are not inherited).
    """
    protocol_in, protocol_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return protocol_in, protocol_out


def load_package(root: str = "") -> None:
    """Load the plugin's root folder as the package ``deepscape``."""
    if "deepscape" in sys.modules:
        return
    root = root or os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    location = os.path.join(root, "__init__.py")
    spec = importlib.util.spec_from_file_location("deepscape", location, submodule_search_locations=[root])
    if spec is None or spec.loader is None:
        raise ImportError(f"No package in {root}")
    package = importlib.util.module_from_spec(spec)
    sys.modules["deepscape"] = package
    spec.loader.exec_module(package)


def main() -> int:
    """Run the worker, or the jobs named on the command line; returns the exit code."""
    if sys.argv[1:2] == ["run"]:
        output = os.dup(1)
        os.dup2(2, 1)
        load_package()
        return int(importlib.import_module("deepscape.tasks.cli").main(sys.argv[2:], output))
    if sys.argv[1:2] == ["trial"] and len(sys.argv) == 3:
        load_package()
        return int(importlib.import_module("deepscape.engine.runtimes.trial").main(sys.argv[2]))
    if sys.argv[1:]:
        sys.stderr.write("usage: run_worker.py [run FILE.job.json ...]\n")
        return 2
    protocol_in, protocol_out = take_channel()
    load_package()
    return int(importlib.import_module("deepscape.tasks.worker").main(protocol_in, protocol_out))


if __name__ == "__main__":
    sys.exit(main())
