"""Makes images: class lists and prompts, noise schedules, samplers, cascades, fine-tuning."""
