"""Models of Hugging Face's transformers, one file an architecture: their options and tensors in a family's terms."""
