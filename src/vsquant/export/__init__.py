"""Quantized models as files."""

from vsquant.export.checkpoint import load, read_header, save

__all__ = ["load", "read_header", "save"]
