"""Ways to run a loaded model. Imports nothing heavy."""
