"""Committed results -> tables."""
