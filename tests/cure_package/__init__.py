"""A user's package for trials of cures on a cluster: what takes time without computing, and what takes memory."""
