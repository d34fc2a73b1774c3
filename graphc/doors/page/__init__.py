"""One self-contained HTML page that shows a compiled program: the user's source, every stage, the graph as a picture,
memory, kernels and passes. A layer of the compiler's own facts; dagre (its text is inlined) lays out the graph."""
from graphc.doors.page.explore import explore, explored
