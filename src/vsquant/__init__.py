"""vsquant: per-vector scaled quantization (VS-Quant), from a PyTorch model to the silicon that runs it."""
