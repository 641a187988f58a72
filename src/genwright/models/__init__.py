"""Models: where they come from, how they are loaded, and how they answer. Definitions are those of `transformers`."""
