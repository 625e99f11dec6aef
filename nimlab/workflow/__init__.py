"""The main workflow as a library: load, render, guard, observe, plan, execute, wait.

`session` reads a lab and connects to a cluster, `observe_and_plan` plans, and `sync` executes.
In: options as values (`sync_options`, `plan.sync_policy`). Out: plans and events (`plan.sync_events`).
Nothing here prints, reads arguments or handles signals; the package `cli` does. A program syncs a lab
like this:

    lab = read_lab(root, commit=read_commit(root))
    with open_session(lab, target) as session:
        for event in sync(session, SyncOptions()):
            ...
"""
