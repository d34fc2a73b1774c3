"""Checks finished loop functions."""


def verify(f) -> None:
    pass
