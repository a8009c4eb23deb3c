"""The plugin object that QGIS holds: three methods, nothing else."""

from __future__ import annotations


class DeepscapePlugin:
    """Registers the Processing provider, and takes it away again."""

    def __init__(self, iface) -> None:
        """Keep QGIS's interface; None under qgis_process."""
        self.iface = iface
        self.provider = None
        self.menu = None

    def initProcessing(self):
        """Register the provider; called on its own by qgis_process."""
        from qgis.core import QgsApplication

        from .algorithms.provider import DeepscapeProvider

        self.provider = DeepscapeProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)
        # Once more: a workflow finds the outputs of its steps only when their provider is registered.
        self.provider.refreshAlgorithms()

    def initGui(self):
        """Start in the QGIS window."""
        self.initProcessing()
        if self.iface is not None:
            from .ui.menu import Menu

            self.menu = Menu(self.iface)
            self.menu.add()

    def unload(self):
        """Stop the workers and take provider and menu away."""
        from qgis.core import QgsApplication

        from .tasks import client

        client.shutdown()
        if self.menu is not None:
            self.menu.remove()
            self.menu = None
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
