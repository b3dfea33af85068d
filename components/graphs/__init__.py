"""What goes into the deployed graph beside the network: one module a task."""
