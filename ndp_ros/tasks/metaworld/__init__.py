"""Wrap Meta-World's environments as tasks whose actions are joint or hand positions."""
