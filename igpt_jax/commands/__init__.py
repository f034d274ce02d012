"""What the command line does, one module per command.

A command is `main(options)`, where `options` are its parsed flags. `plan` also takes the config, and the commands that
work on a run take the config and the workdir: `main(config, workdir, options)`.
"""
