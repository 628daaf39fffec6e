"""The accelerators and the memory of a node, told without importing any engine."""
