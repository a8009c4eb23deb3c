"""The seam between QGIS and the engine: typed jobs, messages, worker, client, environment (standard library only)."""
