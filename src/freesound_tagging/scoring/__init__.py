"""Scores -> metrics, intervals, tests, charts."""
