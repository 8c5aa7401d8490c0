"""JiT (Li & He 2025): a transformer on pixels that says the image."""
