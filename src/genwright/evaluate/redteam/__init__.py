"""Attacking a model on purpose, before somebody else does: what it answers that it should not, and what it refuses for nothing."""
