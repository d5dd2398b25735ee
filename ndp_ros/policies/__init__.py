"""The policies: the network phi, the distributions over actions and the critics."""
