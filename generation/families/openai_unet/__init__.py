"""U-Nets that say their own variance: Improved DDPM, ADM, its upsampler, trained from nothing."""
