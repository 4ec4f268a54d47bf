"""How one model family is loaded, prompted and served. Imports nothing heavy."""
