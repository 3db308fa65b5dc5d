"""Named steps from a model to a result: post-training quantization, and the table of one task."""
