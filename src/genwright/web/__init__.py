"""Read-only views of what a project recorded. Nothing here imports torch, and no page asks anything of the network."""
