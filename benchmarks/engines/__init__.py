"""The engines that are compared, each in a process of its own: `NAME_engine.py` has CONFIGURATION, a line for the
report, and `make(case)`.
"""
