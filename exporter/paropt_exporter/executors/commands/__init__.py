"""A pool that runs commands. The supervisor process (`executors.supervisor`) starts and reaps them."""
