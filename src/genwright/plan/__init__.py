"""The plan: the program run on nothing. Memory from the real step on fake tensors, time from this machine's own operations."""
