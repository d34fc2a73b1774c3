"""What the first reads of operands cost: of what another core has just written, and of what lay there long before."""
from __future__ import annotations

from graphc.schedule.contraction_form import LinearMap, Phase
from graphc.schedule.machine import Machine
from graphc.schedule.target import LINE_BYTES

WEIGHTS_IN_L3 = 0.75            # the part of stored weights that L3 has kept since the last call


def old_byte_cycles(machine: Machine) -> float:
    """Of a byte of operands that were there before the call."""
    return WEIGHTS_IN_L3 / machine.l3_bytes_per_cycle + (1 - WEIGHTS_IN_L3) / machine.memory_bytes_per_cycle


def first_byte_cycles(old: bool, machine: Machine) -> float:
    """Of a byte of operands that another core has written, or of such old ones."""
    return old_byte_cycles(machine) if old else machine.remote_line_cycles / LINE_BYTES


def touched_elements(p: Phase[int], operand: LinearMap[int]) -> int:
    """How many different ones the whole phase reads."""
    low, high = operand.span(p.sizes)
    return min(high - low + 1, p.extent([d for d, step in enumerate(operand.strides) if step]))
