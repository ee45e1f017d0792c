"""Writes the pages of `docs/reference` from what the code declares. They are checked in, and a test compares them."""
