"""Link shaping: `python -m nimlab.agents.shape` runs once in a pod, before other containers use the network.

Flags set rates, delay, jitter and loss. The program configures the kernel with `tc` and `ip`, then reads the
settings back and compares them with the flags. It needs only the capability NET_ADMIN. The package imports
only the standard library and no other part of nimlab.
"""
