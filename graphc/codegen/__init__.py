"""From planned graphs to machine code: the loop IR, its lowering to LLVM text, and the just-in-time compiler."""
