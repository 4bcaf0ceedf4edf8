"""A user's module that cannot be imported."""

SLIP = 1 / 0
