"""Folders and URLs, checked names, atomic writes, files with checksums."""
