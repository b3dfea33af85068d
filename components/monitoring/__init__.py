"""What later data say of a model that is live, and how fast models age. No stage of the line."""
