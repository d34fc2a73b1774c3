"""What schedules assume of a CPU beside its instruction set: figures, measured or documented. No look at the machine we
run on.

Costs are cycles of one core everywhere; what is known as a duration (the hand-over to another thread) becomes cycles in
`Machine.cycles`, and nowhere else.
"""
from __future__ import annotations

from math import inf

from graphc.records import dataclass

MOST_ELEMENTS = 1 << 62             # more than any array has
LINE = 64                           # bytes of a line of the caches
WEIGHTS_IN_L3 = 0.75                # the part of stored weights that L3 has kept since the last call


@dataclass(frozen=True)
class Machine:
    """One CPU. A new one is one `Machine`, in a `Target` (schedule/target.py); `python -m benchmarks machine` measures
    what it can on the CPU it runs on.

    The number of cores is a plan, the same wherever the code runs: how a sum is split must not depend on the number of
    threads.

    Measured by that command. The values of the generic machines are no single CPU's: with them the costs choose what
    was measured to be best before there was a model, and the command shows how far a CPU is from them.
        clock_ghz: cycles in a nanosecond, of the clock in which the others are counted.
        handover_ns: from a kernel's start until other threads work, and back: less work than that is not worth a second
            thread.
        fma_per_cycle: vector multiply-adds that a core begins each cycle.
        vector_op_cycles: cycles of one vector operation of elementwise code, the parts of mathematical functions
            counted one by one.
        scalar_element_cycles: cycles of one element in a loop that computes its address and does little.
        l2_bytes_per_cycle, l3_bytes_per_cycle: what one core reads from a cache when the hardware prefetches.
        memory_bytes_per_cycle: what one of several busy cores gets from memory.
    Measured in kernels (`python -m benchmarks matmul` before and after a change of the loop in question):
        step_cycles: loop control of one step of a micro-kernel's sum.
        micro_kernel_peak: part of the multiply-adds that a core could begin which a micro-kernel reaches with its
            operands in L1 and L2.
        contraction_peak: the same of a whole contraction, with packing, edges and stores.
        transform_point_cycles: a vector of one point of a Winograd tile, loaded, transformed and stored.
        call_cycles: call and return of a micro-kernel beside its sums: addresses, first loads, the stores of its
            results.
        remote_line_cycles: cycles for a cache line that another core has written and nobody prefetches, several in
            flight.
        transpose_cycles: cycles for each element that is transposed into panels.
        transposed_store_cycles: cycles for each result that is transposed before it is stored.
        matrix_setup_cycles: shapes of matrix registers set and given back, and the stores of the results beside their
            sums.
        recompute_ops: vector operations that take as long as it takes to store a value and to load it again.
        stream_prefetch_cycles: what a software prefetch of a line of columns takes of L2's time where few rows read one
            line after the other.
        stream_wait_cycles: how much longer such a line takes where the hardware alone prefetches, of weights as they
            mostly lie in L3.
    Documented (vendors' optimization manuals; the sizes of caches are the host's own where the operating system tells
    them):
        fma_latency: cycles from a fused multiply-add to one that needs its result.
        loads_per_cycle: vectors that a core loads from L1 each cycle.
        l1_bytes, l2_bytes: data caches of one core. l3_bytes: the shared cache.
        l3_latency: cycles until data come that only L3 has.
        bf16_dots_per_cycle: vectors of pairs of bf16 whose products a core begins to add up each cycle.
        matrix_dot_cycles: of a product of two matrix registers.
        prefetch_reach_bytes: distance of two reads of a stream from which on the hardware no longer sees it.
        address_rows: rows of a register tile whose addresses leave general registers for counters and operands.
    Planned (ours):
        planned_cores: threads that get even shares.
        tiles_per_core: tiles for each of these, so that more threads, or threads that are late, have some too.
        long_tile_ns: work in a tile beyond which its fixed cost no longer counts; a thread waits for others as long as
            a tile takes.
        small_product_flops: arithmetic in a tile of a product below which moving its operands to another core costs
            more.
        large_product_flops: beyond which larger tiles of a product reuse no more of what they read.
    """
    clock_ghz: float = 2.5
    handover_ns: float = 3_600.0
    fma_latency: int = 4
    fma_per_cycle: int = 2
    bf16_dots_per_cycle: float = 2.0
    loads_per_cycle: int = 2
    vector_op_cycles: float = 0.36
    scalar_element_cycles: float = 0.8
    step_cycles: float = 0.5
    micro_kernel_peak: float = 0.9
    contraction_peak: float = 0.85
    transform_point_cycles: float = 4.0
    call_cycles: float = 16.0
    l2_bytes_per_cycle: float = 24.0
    l3_bytes_per_cycle: float = 20.0
    memory_bytes_per_cycle: float = 6.0
    remote_line_cycles: float = 14.0
    transpose_cycles: float = 0.7
    transposed_store_cycles: float = 1.5
    matrix_setup_cycles: float = 300.0
    matrix_dot_cycles: int = 16
    recompute_ops: int = 4
    stream_prefetch_cycles: float = 0.5
    stream_wait_cycles: float = 1.0
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    l3_bytes: int = 16 << 20
    l3_latency: int = 64
    prefetch_reach_bytes: int = 1024
    address_rows: int = 10
    planned_cores: int = 4
    tiles_per_core: int = 8
    long_tile_ns: float = 10_000.0
    small_product_flops: int = 400_000
    large_product_flops: int = 6_500_000

    def cycles(self, ns: float) -> float:
        """A duration in cycles: the one place where one becomes the other."""
        return ns * self.clock_ghz

    @property
    def busy_sums(self) -> int:
        """Vectors of sums that keep the units of a core busy: with fewer they wait for results."""
        return self.fma_latency * self.fma_per_cycle

    @property
    def easy_rows(self) -> int:
        """Rows of a register tile whose addresses leave general registers to spare, also for several steps at once."""
        return self.address_rows - 2

    @property
    def remote_byte_cycles(self) -> float:
        """Of a byte that another core has written."""
        return self.remote_line_cycles / LINE

    @property
    def old_byte_cycles(self) -> float:
        """Of a byte of operands that were there before the call."""
        return WEIGHTS_IN_L3 / self.l3_bytes_per_cycle + (1 - WEIGHTS_IN_L3) / self.memory_bytes_per_cycle

    def shared_byte_cycles(self, nbytes: float) -> float:
        """Of a byte of so many that kernels read or leave, in part from memory: half of L3 has what others need."""
        missed = min(1.0, 2 * nbytes / self.l3_bytes)
        return (1 - missed) / self.l3_bytes_per_cycle + missed / self.memory_bytes_per_cycle

    def is_worth_fetching(self, nbytes: int) -> bool:
        """Whether asking for each line of so many bytes takes less than waiting for those that L2 has not kept."""
        return max(0, nbytes - self.l2_bytes) * self.remote_line_cycles > nbytes * self.scalar_element_cycles

    @property
    def reload_ops(self) -> int:
        """Operations on vectors of 64 bytes that take as long as it takes to write one to memory, which reads its line
        before, and to read it again."""
        return int(3 * 64 / self.memory_bytes_per_cycle / self.vector_op_cycles)

    @property
    def handover_cycles(self) -> float:
        return self.cycles(self.handover_ns)

    @property
    def least_parallel_cycles(self) -> float:
        """Work that the planned cores do, hand-over included, as fast as one; no work is enough for one core."""
        others = self.planned_cores - 1
        return self.handover_cycles * self.planned_cores / others if others else inf

    @property
    def long_tile_cycles(self) -> float:
        return self.cycles(self.long_tile_ns)

    @property
    def short_tile_cycles(self) -> float:
        """Work in a tile beyond which taking it does not count."""
        return 2 * self.handover_cycles / 3

    @property
    def planned_tiles(self) -> int:
        """Tiles worth having, whatever the number of threads."""
        return self.planned_cores * self.tiles_per_core

    @property
    def row_elements(self) -> int:
        """Of a row that several stages of a loop nest walk over: f32 numbers in half of L2."""
        return self.l2_bytes // 2 // 4

    @property
    def column_elements(self) -> int:
        """The same where neighbours are in different lines of 64 bytes: four times as many as L1 holds."""
        return 4 * self.l1_bytes // 64

    @property
    def serial_elements(self) -> int:
        """Elements, read and written as f32 numbers, that one thread computes about as fast as several, which wait for
        each other."""
        return int(min(self.least_parallel_cycles * self.l3_bytes_per_cycle / 8, MOST_ELEMENTS))

    def tile_cycles(self, total: float) -> float:
        """Work of one tile of a kernel of `total` cycles: half the planned tiles, none so short that taking it counts,
        none longer than is of use."""
        return min(self.long_tile_cycles, max(self.handover_cycles / 3, 2 * total / self.planned_tiles))
