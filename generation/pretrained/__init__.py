"""Models of other authors: found, fetched, hashed and read without running their code."""
