"""A model that is larger than a process: built without weights, sharded, and filled shard by shard."""
