"""The part of the lab that runs on its kernel: one process that owns hosts, mounts and commands.

One rule: standard library only and few imports, because in the user-mode kernel every page touched is paid for.
"""
