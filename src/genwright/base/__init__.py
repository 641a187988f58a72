"""What every room may use: errors, units, names, declared fields, files on disk, and the record of a run.

Imports nothing but the standard library.
"""
