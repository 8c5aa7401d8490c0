"""What a worker does for one shard: sample, judge, encode, write."""
