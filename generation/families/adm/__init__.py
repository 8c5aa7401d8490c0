"""OpenAI's class-conditional U-Nets: ADM, its upsampler, Improved DDPM."""
