"""A project: its file (`tables`, `spec`), what must run (`graph`), what was made (`store`), and doing it (`apply`).

Free of torch. A project file says what is wanted; mechanics belong in the plan.
"""
