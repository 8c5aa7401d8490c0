"""Converters: a checkpoint in its authors' own layout becomes one of diffusers' networks."""
