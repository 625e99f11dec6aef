"""The RTT exporter: a process of its own beside every peer, `python -m nimlab.rtt`.

In: the experiment's headless Service, asked by DNS, and settings from flags or the environment. Out:
round-trip times and loss to a few other peers, as Prometheus text over HTTP. Not done here: anything of the
rest of nimlab, of which no module is imported, nor any package that isn't Python's own. `docs/rtt.md`
describes what is measured.
"""
