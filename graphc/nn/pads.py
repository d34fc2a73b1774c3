"""Padding layers, by what stands around and by the number of axes."""
from __future__ import annotations

from graphc.nn.rearrange import Pad


class ConstantPad1d(Pad):
    """`value` around x [B, C, L]."""

    def __init__(self, padding: int | tuple[int, ...], value: float) -> None:
        super().__init__(padding, value)


class ConstantPad2d(ConstantPad1d):
    """`value` around x [B, C, H, W]."""
    axes = 2


class ConstantPad3d(ConstantPad1d):
    """`value` around x [B, C, D, H, W]."""
    axes = 3


class ZeroPad1d(Pad):
    """Zeros around x [B, C, L]."""

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding)


class ZeroPad2d(ZeroPad1d):
    """Zeros around x [B, C, H, W]."""
    axes = 2


class ZeroPad3d(ZeroPad1d):
    """Zeros around x [B, C, D, H, W]."""
    axes = 3


class ReflectionPad1d(Pad):
    """x [B, C, L] mirrored at its edges, which stand once."""
    mode = "reflect"

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding)


class ReflectionPad2d(ReflectionPad1d):
    """x [B, C, H, W] mirrored at its edges, which stand once."""
    axes = 2


class ReflectionPad3d(ReflectionPad1d):
    """x [B, C, D, H, W] mirrored at its edges, which stand once."""
    axes = 3


class ReplicationPad1d(Pad):
    """The edges of x [B, C, L] again and again."""
    mode = "edge"

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding)


class ReplicationPad2d(ReplicationPad1d):
    """The edges of x [B, C, H, W] again and again."""
    axes = 2


class ReplicationPad3d(ReplicationPad1d):
    """The edges of x [B, C, D, H, W] again and again."""
    axes = 3


class CircularPad1d(Pad):
    """x [B, C, L] from its other end."""
    mode = "wrap"

    def __init__(self, padding: int | tuple[int, ...]) -> None:
        super().__init__(padding)


class CircularPad2d(CircularPad1d):
    """x [B, C, H, W] from its other end."""
    axes = 2


class CircularPad3d(CircularPad1d):
    """x [B, C, D, H, W] from its other end."""
    axes = 3
