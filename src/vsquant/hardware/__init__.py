"""How the format is built: the datapath bit for bit, its RTL, and what it costs. NumPy, no torch."""

from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_model import LaneOperand, LaneStep, LaneSums, lane_sums, run_lane
from vsquant.hardware.layers import LayerSums, float_outputs, group_operands, layer_sums, post_processed
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.recorded import OutputCodes, RecordedLayer

__all__ = [
    "Lane",
    "LaneOperand",
    "LaneStep",
    "LaneSums",
    "LayerSums",
    "OutputCodes",
    "PostProcessingUnit",
    "RecordedLayer",
    "float_outputs",
    "group_operands",
    "lane_sums",
    "layer_sums",
    "post_processed",
    "run_lane",
]
