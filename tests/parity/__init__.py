"""Weights and inputs made by rule, for tests against numbers of the papers' own code."""
