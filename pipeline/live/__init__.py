"""Live: frames in, pictures out as it happens; and the same loop without its threads."""
