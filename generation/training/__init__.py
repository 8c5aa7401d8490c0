"""Training and fine-tuning of a cascade stage: recipe, data, loop, state, pictures."""
