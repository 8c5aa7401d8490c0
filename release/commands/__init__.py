"""What all commands share: options, recipes in TOML, progress, one-line errors, the terminal."""
