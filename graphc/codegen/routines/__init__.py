"""The routine IR, in which the runtime is written: typed values, structured control flow, atomics; builder and LLVM
text."""
