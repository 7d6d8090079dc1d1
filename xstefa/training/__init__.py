"""Training on the same matching, units, scaling and windows as prediction."""
