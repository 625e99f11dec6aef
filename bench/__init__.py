"""Benchmark of nimlab, kubectl, Helm and Flux's engine on the same objects and the same API server.

`python -m bench` builds the tools, starts a new sandbox, measures, and writes a table and a plot. In: sizes
and a seed. Out: `performance.md`, `performance.png` and `performance.json`. The installed package does not
contain the benchmark.
"""
