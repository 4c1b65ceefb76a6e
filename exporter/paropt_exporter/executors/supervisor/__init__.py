"""The supervisor: one small process that starts, measures and ends commands. It imports little else of the package.

Here are the names that it shares with the exporter.
"""

# Messages on the control socket. CHANNEL: a channel for commands. WATCH: kill the exporter's own children, too, when it
# has exited. REST: none of them is running now. EXIT: the exporter is exiting. BYE: it and its children continue
# without a supervisor.
CHANNEL, WATCH, REST, EXIT, BYE = b"c", b"w", b"r", b"e", b"b"
# In the environment of all processes that an exporter starts: its process id, start time and project.
RUN_MARK = "PAROPT_RUN"
# In the environment of a command and its descendants: the command's mark.
MARK = "PAROPT_COMMAND"
