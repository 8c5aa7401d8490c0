"""A transformer's blocks in fp8: where it runs, and the layers."""
