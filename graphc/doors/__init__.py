"""Doors to other programs, a folder each. They use public names, and import what they open to."""
