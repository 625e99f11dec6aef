"""Programs that run inside pods: the RTT exporter and the link shaper. They import nothing else of nimlab."""
