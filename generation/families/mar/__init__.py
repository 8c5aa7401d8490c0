"""MAR: tokens in a random order, each drawn by a diffusion of its own (Li et al. 2024)."""
