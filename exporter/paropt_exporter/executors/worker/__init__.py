"""The code of a ProcessPool's fork server and worker processes, which import this package and little more."""
