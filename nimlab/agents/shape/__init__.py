"""Link shaping: `python -m nimlab.agents.shape` runs once in a pod, before other containers use the network.

Flags set rates, delay, jitter and loss. `tc` and `ip` configure the kernel; the result is read back and
compared. The process needs only the capability NET_ADMIN. The package imports nothing from the rest of nimlab
and nothing outside the standard library.
"""
