"""Noise schedules, the sampling loop and its settings, noise by seed."""
