"""The VQ-regularised autoencoder of latent diffusion (Rombach et al. 2022), trained here."""
