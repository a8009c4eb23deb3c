"""The plugin object that QGIS holds: three methods, nothing else."""

from __future__ import annotations


class DeepscapePlugin:
    """Registers the Processing provider, and takes it away again."""

    def __init__(self, iface):
        self.iface = iface
        self.provider = None

    def initProcessing(self):
        """Register the provider; called on its own by qgis_process."""
        from qgis.core import QgsApplication

        from .algorithms.provider import DeepscapeProvider

        self.provider = DeepscapeProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):
        """Start in the QGIS window."""
        self.initProcessing()

    def unload(self):
        """Stop the workers and take the provider away."""
        from qgis.core import QgsApplication

        from .tasks import client

        client.shutdown()
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
