"""What is done to a finished release: verified, repaired, extended, reproduced, published."""
