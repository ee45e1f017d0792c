"""Realistic traffic of a contact centre, pure and repeatable from a seed: for demonstrations, tests and benchmarks."""
