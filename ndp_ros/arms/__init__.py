"""Arms: one protocol, and the backends behind it."""
