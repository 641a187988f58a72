"""Handing the result over: merged models and the proof that they are what was judged."""
