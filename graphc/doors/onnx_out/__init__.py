"""Graphs, networks and training steps as ONNX files. The package `onnx` is imported only here and in the other door of
that name."""
