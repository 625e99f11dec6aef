"""The RTT exporter: a separate process beside every peer, started by `python -m nimlab.agents.rtt`.

It finds the other peers through DNS records of the experiment's headless Service. It probes a few of them,
and exposes the round-trip times and the loss as Prometheus metrics over HTTP. Settings come from flags or the
environment. The package imports no other part of nimlab, and only prometheus_client outside the standard
library. `docs/rtt.md` describes the measurements.
"""
