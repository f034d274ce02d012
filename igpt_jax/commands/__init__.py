"""What the command line does, one module a command: `main(config, workdir, options)`."""
