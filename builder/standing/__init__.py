"""What a folder is a release of, and which command holds it."""
