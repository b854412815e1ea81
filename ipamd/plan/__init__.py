"""The planner: the daemon's own engine against a model of EC2.

Its clock runs as fast as it can.
"""
