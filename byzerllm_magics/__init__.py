"""Jupyter magics."""
