"""Skip unchanged stages: keys, the index of file states, the store, and the misses with their reasons."""
