"""How the format is built: the datapath bit for bit, its RTL, and what it costs. NumPy, no torch."""

from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_model import LaneOperand, LaneStep, LaneSums, lane_sums, run_lane
from vsquant.hardware.post_processing import PostProcessingUnit

__all__ = ["Lane", "LaneOperand", "LaneStep", "LaneSums", "PostProcessingUnit", "lane_sums", "run_lane"]
