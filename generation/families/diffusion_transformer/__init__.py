"""DiT (Peebles & Xie 2023) and SiT (Ma et al. 2024): one transformer, two ways to learn."""
