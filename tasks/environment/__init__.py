"""The engine's environment: where it lies, how it is found, made, verified and removed (standard library only).

`find_engine`, `engine_ready` and `status` look at files alone; `install` does the work of 'Set up the engine'.
"""

from .extras import extras_of, in_words
from .install import ACTIONS, BUILDS, SetupOptions, install
from .lookup import EngineInterpreter, engine_ready, find_engine
from .places import cache_dir, engines_dir, home, log_dir, model_store, scratch_dir
from .release import EXTRAS
from .report import EngineStatus, status

__all__ = [
    "ACTIONS",
    "BUILDS",
    "EXTRAS",
    "EngineInterpreter",
    "EngineStatus",
    "SetupOptions",
    "cache_dir",
    "engine_ready",
    "engines_dir",
    "extras_of",
    "find_engine",
    "home",
    "in_words",
    "install",
    "log_dir",
    "model_store",
    "scratch_dir",
    "status",
]
