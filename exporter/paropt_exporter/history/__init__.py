"""Keep runs, and the totals that metrics resume from, in one SQLite file that several processes may share.

A plain run loads `store` only, and not the modules of summaries, failures and interrupted runs.
"""

from paropt_exporter.history.store import History as History
