"""Frames and observations in, files and pictures out. Knows nothing of models or of the pipeline."""
