"""KV caches of clips on disk, reused from one process to the next."""
