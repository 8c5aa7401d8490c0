"""LightningDiT (Yao et al. 2025) on latents of its VA-VAE."""
