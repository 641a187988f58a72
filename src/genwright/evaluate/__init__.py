"""How good it is, with what certainty: scores, intervals, paired comparisons. No torch here."""
