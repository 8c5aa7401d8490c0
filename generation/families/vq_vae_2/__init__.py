"""VQ-VAE-2 (Razavi et al. 2019): codes on two levels, and priors that draw them one by one."""
