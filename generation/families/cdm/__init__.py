"""CDM, cascaded diffusion models (Ho et al. 2022, arXiv 2106.15282)."""
