"""Genesys Cloud conversation updates in, clean state and ordered transitions out, exactly once."""
