"""From files to batches: rows and their formats, splits, tokens and which are learned, packs, the order of rows.

Everything is a pure function of the rows, the tokenizer and a seed; only `collate` knows torch.
"""
