"""C libraries of graphs. Needs nothing but graphc itself; the extra `export` has a linker for machines without one."""
