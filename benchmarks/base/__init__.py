"""This checkout's op beside that of another commit, in turns on one GPU."""
