"""Networks from files of weights: folders of the library transformers, and GGUF. Neither torch nor transformers is
needed."""
