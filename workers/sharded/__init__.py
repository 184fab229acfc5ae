"""Kernels that fit no single process: their tiles, products with them, and their eigenvalues, by several processes on one node or many."""
