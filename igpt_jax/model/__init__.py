"""The Image GPT network, as Flax linen modules and pure functions.

Array names end in their axes, in the same letters as in the einsums:

    b batch    t position    s position attended to    d width    h heads    k head dim
    f MLP width    v palette colors    l layers    c classes
"""
