"""nimlab beside kubectl, Helm and Flux's engine, on the same objects and the same server, in turns.

`python -m bench` builds the peers, starts a fresh sandbox, measures, and writes a table and a plot. The rooms
behind this door: programs (the peers, from package registries), server (a fresh API server that counts),
lab (experiments, and the objects that they render), peers (what each tool is asked to do), measure and
launch (one program run and its cost), rounds (the turns), table and plot (what came of it).
"""
