"""What the plugin adds to the QGIS window. No work is done here: it runs algorithms."""
