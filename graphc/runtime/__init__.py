"""Running compiled code: threads, memory, the calling convention, the Python entry point."""
