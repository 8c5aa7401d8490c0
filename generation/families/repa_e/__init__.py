"""REPA-E (Leng et al. 2025): SiT on latents of an autoencoder that learned with it."""
