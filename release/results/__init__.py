"""Result files: a number with its protocol, reference, seeds and environment."""
