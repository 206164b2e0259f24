"""Learning an avatar from a video, and measuring it."""
