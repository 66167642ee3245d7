"""Attention beside its peers: cases, inputs, and one file for each peer."""
