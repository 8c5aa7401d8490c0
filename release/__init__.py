"""What a release is on disk, what real images are read from, and what all commands share."""
