"""Shows a person under another light: deferred shading of the tracked head, applied to their picture as a ratio."""
