"""Prediction from an exported folder with numpy, Pillow and onnxruntime; nothing here imports torch."""
