"""Finished runs: their checkpoints, the policies in them, and choosing among those."""
