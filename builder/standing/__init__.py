"""What a folder is a release of, and which build holds it."""
