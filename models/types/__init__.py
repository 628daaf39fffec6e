"""The vocabulary that crosses process boundaries: small frozen dataclasses, free of torch.

Requests travel from the ingress to a replica, results travel back. Every request is one client's
request; calls that coalesce several clients carry a list of them and return a list of the same
length, in which an item that failed alone is its `ModelError`.
"""
