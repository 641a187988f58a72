"""What is changed: each adapter is a frozen dataclass that turns a model into one with some weights to train.

Knows models; never objectives, sharding or the step. Saved in the field's formats, so that others load it without us.
"""
