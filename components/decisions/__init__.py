"""What the logits mean: how labels become targets, what training lowers, and what is decided in the end."""
