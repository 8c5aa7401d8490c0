"""DiT^DH on the latents of a representation autoencoder (Zheng et al. 2025)."""
