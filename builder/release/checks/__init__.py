"""What `release verify` looks at, kind by kind of release."""
