"""Helpers of the tests: small synthetic artifacts, and a command that exercises the stream contract."""
