"""The documents: Markdown, and in `generate/` what writes the pages of `reference/`."""
