"""The algorithm core: node programs, effects, tensor operations. Pure Python and NumPy."""
