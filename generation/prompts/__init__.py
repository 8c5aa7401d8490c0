"""What a network is told: text, a class, nothing."""
