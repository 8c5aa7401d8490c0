"""EDM2: magnitude-preserving U-Nets (Karras et al. 2024, arXiv 2312.02696)."""
