"""What a sample becomes before the network: one self-contained file a task, shipped verbatim in the bundle."""
