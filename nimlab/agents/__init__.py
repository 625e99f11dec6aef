"""Programs that run in pods: RTT exporter, link shaper, start delay. They import no other part of nimlab."""
