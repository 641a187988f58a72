"""What a step does: a setup run on fake tensors, cut at its layers, put together at any depth, on any number of devices."""
