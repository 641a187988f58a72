"""Genwright carries a generative-AI project through its whole life cycle from one file."""

__version__ = "0.1.0"
