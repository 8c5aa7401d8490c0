"""Class-conditional latent diffusion transformers."""
