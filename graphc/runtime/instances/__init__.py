"""Instances of exported libraries: their memory, their statuses, and the routines that all libraries have."""
