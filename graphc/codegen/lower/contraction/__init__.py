"""Contractions to loops: matrix products, einsums, convolutions and both of their gradients, by one set of loops.

    lowering        a contraction's function: padded copies of operands (padded_copy), then each phase of its normal
    form tiled           a phase by micro-tiles: Goto's five loops in the words of BLIS (streamed: the same for few
    rows)
      tile              what the loops count: tiles, blocks of the sum, micro-tiles
      row_source, column_source     the operands, one class for each packing mode (pack_rows, pack_columns: how panels
      are made) micro_kernel, stream_kernel   the innermost loop, one function for each shape accumulators      where
      sums are until they are finished; split-K sweep, outputs    finished sums through the epilogue (epilogue) into the
      outputs prefetch          software prefetch of what a tile packs next
    dots, direct, narrow, plain     phases without micro-tiles: dot products, depthwise convolutions, few outputs,
    integers node            nodes and clusters of a graph
"""
