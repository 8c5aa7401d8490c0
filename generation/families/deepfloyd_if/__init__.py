"""DeepFloyd IF's cascade and Stable Diffusion's x4 upscaler."""
