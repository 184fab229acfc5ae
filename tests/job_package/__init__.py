"""Workloads of tests, in a package of their own as a user's would be."""
