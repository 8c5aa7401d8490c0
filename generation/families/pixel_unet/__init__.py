"""This project's own cascade stages: a diffusers U-Net on pixels."""
