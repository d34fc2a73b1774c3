"""PyTorch's programs come in: `gc.from_torch` and `torch.compile(model, backend="graphc")`. PyTorch is imported by the
files that read its objects, never by the rules, which translate operators by name."""
