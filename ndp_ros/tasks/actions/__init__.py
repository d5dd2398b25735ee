"""Change what an action means: impedance gains, embedded sequences, wrapped environments."""
