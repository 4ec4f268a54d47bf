"""How weights are changed: DeepSpeed workers on Ray, one training loop. Imports nothing heavy."""
