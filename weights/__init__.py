"""Weights on disk: where they lie, how they get there, and what is refused."""
