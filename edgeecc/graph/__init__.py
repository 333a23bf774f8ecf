"""Networks as data: the spec, tracing into it, slimming torch models and cutting ONNX graphs by it."""
