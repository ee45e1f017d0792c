"""Realistic traffic of a contact centre: pure, repeatable from a seed. For demonstrations, tests and measurements."""
