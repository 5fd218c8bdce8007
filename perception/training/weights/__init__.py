"""Weights: from model files, pruned, averaged, made compact."""
