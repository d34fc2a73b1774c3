"""Language models from GGUF files, as llama.cpp writes them."""
