"""Set up the engine from a terminal: ``python3 run_setup.py install --build cpu`` (the Makefile's and a cluster's way).

Runs by its path with any Python from 3.9, whatever the plugin's folder is called.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path


def load_package() -> None:
    """Load the plugin's root folder as the package ``deepscape``; sys.path stays as it is."""
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "deepscape", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"'{root}' is no Deepscape plugin folder")
    module = importlib.util.module_from_spec(spec)
    sys.modules["deepscape"] = module
    spec.loader.exec_module(module)


def main() -> int:
    """Do what the command line says; return the exit code."""
    load_package()
    from deepscape.tasks.environment import ACTIONS, BUILDS, EXTRAS, SetupOptions, in_words, install, status
    from deepscape.tasks.errors import DeepscapeError

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=(*ACTIONS, "status", "python"), help="python prints the engine's interpreter")
    parser.add_argument("--build", choices=BUILDS, default="auto")
    parser.add_argument("--interpreter", default="", help="verify this interpreter instead; nothing is installed")
    parser.add_argument("--wheels", default="", help="folder with wheels, for machines without network")
    parser.add_argument("--extras", nargs="+", choices=tuple(EXTRAS), default=(), help="what to add to the engine")
    arguments = parser.parse_args()
    if arguments.action in ("status", "python"):
        found = status()
        print(found.report if arguments.action == "status" else found.python or found.reason)
        return 0 if found.ready else 1
    try:
        options = SetupOptions(
            arguments.action,
            arguments.build,
            arguments.interpreter,
            arguments.wheels,
            extras=tuple(arguments.extras),
        )
        done = install(options, progress=lambda percent, sentence: print(f"[{percent:3.0f} %] {sentence}", flush=True))
    except DeepscapeError as error:
        print(f"{error}\n{error.details}".rstrip(), file=sys.stderr)
        return 1
    if done.ready:
        print(f"{done.python} ({done.size_bytes / 1e9:.2f} GB, extras: {in_words(done.extras)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
