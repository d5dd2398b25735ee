"""The tasks, as gymnasium environments."""
