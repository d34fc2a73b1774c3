"""The backward graph."""
