"""One rule for each ATen operator that graphc takes: a function with the operator's arguments that builds the result
with public functions. Operators and types stand here by name, so no rule needs PyTorch."""
