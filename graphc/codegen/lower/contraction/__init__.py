"""Contractions to loops: matrix products, einsums, convolutions and both of their gradients, by one set of loops.

    lowering            the function of a contraction: padded copies of operands, then the phases of its normal form
    tiled, streamed     a phase by micro-tiles: Goto's five loops in the words of BLIS
    regimes             a phase whose number of rows comes with the call: one set of loops for few, some, many
    tile                what these loops count: tiles, blocks of the sum, micro-tiles
    row_source, column_source       the operands, one class for each packing mode
    pack_rows, pack_columns         how panels are made
    micro_kernel, stream_kernel     the innermost loop, one function for each layout
    accumulators        where sums are until they are finished; split-K
    sweep, outputs, epilogue        finished sums through the epilogue into the outputs
    prefetch            software prefetch of what a tile packs next
    dots, direct, narrow, plain     phases without micro-tiles: dot products, depthwise convolutions, small outputs
"""
