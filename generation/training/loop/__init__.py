"""The one training loop: what is handed in, what changes meanwhile, what is kept to go on from."""
