"""Simple Diffusion (Hoogeboom et al. 2023, arXiv 2301.11093): U-Net and U-ViT on pixels."""
