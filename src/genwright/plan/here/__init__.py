"""The plan of a project's rungs on this machine, and what really happened: the same step, on fake tensors and on real ones."""
