"""The QGIS side: one Processing algorithm per file, in a folder per step."""
