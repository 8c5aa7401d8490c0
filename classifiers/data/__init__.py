"""Training images: sources, order, decoding, augmentation, batches."""
