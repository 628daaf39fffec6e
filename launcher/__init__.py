"""`python -m launcher`: the whole server on this machine, from one command to a clean end."""
