"""Link shaping: `python -m nimlab.agents.shape` runs once in a pod, before other containers use the network.

Flags set rates, delay, jitter and loss. It configures the kernel with `tc` and `ip`, then reads the settings
back and compares them. It needs only the capability NET_ADMIN. The package imports no other part of nimlab
and only the standard library.
"""
