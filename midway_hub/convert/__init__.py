"""Convert the authors' released checkpoints to safetensors without running anything that they hold."""

from midway_hub.convert.conversion import ConversionReport, convert_checkpoint
from midway_hub.convert.records import ConversionError, UnsafePickleError

__all__ = ["ConversionError", "ConversionReport", "UnsafePickleError", "convert_checkpoint"]
