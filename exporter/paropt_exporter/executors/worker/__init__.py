"""What runs in child processes of a ProcessPool; they import this package and next to nothing else."""
