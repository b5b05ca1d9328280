"""The demonstration: the product's main job on a real kernel, step by step, with every claim measured."""
