"""Shaping of a peer's link: `python -m nimlab.shape`, run once in a pod before anything uses the network.

In: rates, delay, jitter and loss from flags. Out: queues in the kernel that do that, read back and compared;
or an end with one message that says what isn't so. `tc` and `ip` do the work, with NET_ADMIN and no other
right. Nothing of the rest of nimlab is imported, nor any package that isn't Python's own.
"""
