"""What is done with models besides training: merge an adapter, convert a checkpoint, evaluate on a table.

Each action is a declaration of keys and a generator that yields what it is doing, a line at a time, and last its
result: the same in a Ray task and in a test.
"""
