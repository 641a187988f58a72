"""What is learned: each objective is a frozen dataclass that maps (model, batch) to a Loss. One file per family of them.

Knows models; never adapters, sharding, data files or the step.
"""
