"""The metrics, each a state that adds up over shards."""
