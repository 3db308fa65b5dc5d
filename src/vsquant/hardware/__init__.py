"""How the format is built: the datapath bit for bit, its RTL, and what it costs. NumPy, no torch."""

from vsquant.hardware.lane import Lane

__all__ = ["Lane"]
