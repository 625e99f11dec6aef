"""The RTT exporter: a separate process beside every peer, started by `python -m nimlab.agents.rtt`.

It finds the other peers through DNS records of the experiment's headless Service. It exposes round-trip times
and loss to a few of them as Prometheus metrics over HTTP. Settings come from flags or the environment. The
package imports nothing from the rest of nimlab, and only prometheus_client outside the standard library.
See `docs/rtt.md` for what is measured.
"""
