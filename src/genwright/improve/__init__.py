"""Climb only as high as needed: what can be tried, in order of cost, judged, and when to stop."""
