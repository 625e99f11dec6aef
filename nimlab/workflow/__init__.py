"""The main workflow as a library: load, render, guard, observe, plan, execute, wait.

In: options as values. Out: plans and events. Nothing here prints, parses arguments or handles signals; `cli`
does.
"""
