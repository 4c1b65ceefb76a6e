"""What runs in the one small process that starts, measures and ends commands; it imports nothing else of ours."""
