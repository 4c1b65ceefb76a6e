"""Helpers of tests: real servers, sample events, projects on disk, and programs that tests run."""
