"""SR3, super-resolution by iterative refinement (Saharia et al. 2021, arXiv 2104.07636)."""
