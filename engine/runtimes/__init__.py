"""What turns blocks of a scene into classes: one module per runtime, imported only when it is chosen."""

from .base import BATCH, Geometry, Model, Runtime, Wishes, geometry_of, no_class
from .choosing import create_runtime

__all__ = ["BATCH", "Geometry", "Model", "Runtime", "Wishes", "create_runtime", "geometry_of", "no_class"]
