"""The main workflow as a library: load the files, render, check, observe, plan, execute, wait.

`session` reads a lab and connects to a cluster, `observe_and_plan` plans, and `sync` executes. The options
are Python objects (`sync_options`, `plan.sync_policy`). The results are plans and events
(`plan.sync_events`). This package does not print, read arguments or handle signals; the package `cli` does. A
program can sync a lab like this:

    lab = read_lab(root, commit=read_commit(root))
    with open_session(lab, target) as session:
        for event in sync(session, SyncOptions()):
            ...
"""
