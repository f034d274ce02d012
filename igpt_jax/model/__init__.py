"""The Image GPT network, as flax linen modules and pure functions.

Array names end in their axes, letter for letter as in the einsums:

    b batch    t position    s position attended to    d width    h heads    k head dim
    f MLP width    v palette colors    l layers    c classes
"""
