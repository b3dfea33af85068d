"""Ways to write the network smaller or faster: one module a rung of the ladder."""
