"""The engine: sampling, patches, training, mapping and assessment. Runs in the worker process; never imports QGIS."""

import os as _os

# Before any library that brings OpenMP is loaded. Its threads spin while they wait for each other; as soon as another
# process wants a core (QGIS does), a small network trains fifteen times slower. Sleeping costs nothing measurable.
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
