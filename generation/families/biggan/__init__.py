"""BigGAN-deep."""
