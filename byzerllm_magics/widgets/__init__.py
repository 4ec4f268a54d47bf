"""What a notebook shows: the loss chart, the job card and the chat, each live and each with a static twin.

Import the submodule you need; this package itself imports nothing, so that `%load_ext` stays fast.
"""
