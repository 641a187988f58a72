"""What there is to choose from: tasks, application profiles, models, devices, and the parts of a recipe, by name.

Facts stand in TOML tables beside the code, each with where it can be checked; a fact nobody could support is left out
and reads as None or empty. Reading a table needs the standard library and `base` only.
"""
