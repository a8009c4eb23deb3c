"""The engine: sampling, patches, training, mapping and assessment. Runs in the worker process; never imports QGIS."""
