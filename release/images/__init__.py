"""Images as arrays: decoding, views of a fixed size, encoding, colour."""
