"""Importing real images: which file holds which, what becomes of one image, which are bad."""
