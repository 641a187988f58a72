"""The engine: a Recipe is built once, stepped many times, saved and resumed exactly. It yields; others consume."""
