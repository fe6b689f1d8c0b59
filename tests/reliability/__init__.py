"""Promises about files, machines and long work, and what keeps them: campaigns with a seed, run by hand or in small by
tests.

    PYTHONPATH=tests python -m reliability files --count 100000
    PYTHONPATH=tests python -m reliability --help

Each campaign prints a line for the table in docs/reliability.md and, where a promise is broken, what breaks it again.
"""
