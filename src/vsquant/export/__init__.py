"""Quantized models as files."""

from vsquant.export.checkpoint import load, save
from vsquant.export.storage import read_header

__all__ = ["load", "read_header", "save"]
