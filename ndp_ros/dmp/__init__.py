"""The dynamical system: w, g to y, yd, ydd at any rate (section 2 and 3.1 of the paper)."""
