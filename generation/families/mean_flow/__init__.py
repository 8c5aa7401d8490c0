"""Improved MeanFlow (Geng et al. 2025): latents in one or two steps."""
