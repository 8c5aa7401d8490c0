"""Checkpoints and sampler settings chosen by what their images are worth."""
