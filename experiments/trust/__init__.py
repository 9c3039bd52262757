"""Accuracy of the results: against arithmetic of fifty digits, and tests of the tests."""
