"""Light: what falls on a head, as values that a picture can be shaded with."""
