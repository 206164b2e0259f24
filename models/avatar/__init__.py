"""Avatars: one person learned from a video, as textured layers whose colours, shape and edges follow the code linearly."""
