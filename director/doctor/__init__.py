"""Finds what keeps a director or a real server from serving, and says what to do about it.

One rule: it only looks. `gather.py` asks this host and the wire, every other file judges what was gathered.
"""
