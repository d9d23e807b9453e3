"""A run's weights as a network of the hub: loaded back and checked before they are there, with a card of facts."""

from midway_hub.training.export.network import DTYPES, ExportError, export_run, set_export_aside

__all__ = ["DTYPES", "ExportError", "export_run", "set_export_aside"]
