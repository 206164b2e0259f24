"""What goes wrong with a model's own files, as one line for whoever asked."""

from __future__ import annotations


class ModelError(ValueError):
    """Weights that can't be used: missing, damaged, of another version. The message says what to do."""
