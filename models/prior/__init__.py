"""Parametric face priors: what a head can look like and how it moves."""
